#!/usr/bin/env bash
# Tests the page of `swin-mm demo`. It needs gradio, whose version 6 wants pillow below 13, so that
# it has an environment of its own, .venv-page, which takes all other packages from .venv.
# Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=.venv-page/bin/python
folder='import sysconfig; print(sysconfig.get_path("purelib"))'
wanted=$(cat setup.cfg | sha256sum)
if [ "$(cat .venv-page/.installed 2>/dev/null)" != "$wanted" ]; then
  .venv/bin/python -m venv --clear .venv-page
  echo "import site; site.addsitedir('$(.venv/bin/python -c "$folder")')" \
    > "$("$python" -c "$folder")/zz_shared.pth" # after what is installed here
  needed='import configparser
setup = configparser.ConfigParser()
setup.read("setup.cfg")
print(setup["options.extras_require"]["demo"])'
  "$python" -m pip install --quiet --disable-pip-version-check $("$python" -c "$needed")
  echo "$wanted" > .venv-page/.installed
fi
exec "$python" -m pytest tests/inference/test_page.py "$@"
