"""mmengine's loading, repaired: its own checkpoints, every scheme, and files that carry code."""

import http.server
import os
import socket
import subprocess
import sys
import threading
from functools import partial
from types import SimpleNamespace

import mmengine.runner.checkpoint as mmengine_checkpoint
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.model import BaseModel
from mmengine.runner import CheckpointLoader, Runner
from swin_weights import SMALL, microsoft_state

from swin_mm.checkpoint import CheckpointError
from swin_mm.compat import checkpoint_loading
from swin_mm.models import SwinTransformer

SAVE_AND_LOAD = """
import sys
from mmengine.logging import MessageHub
from mmengine.runner import CheckpointLoader, save_checkpoint
hub = MessageHub.get_instance("test")
hub.update_scalar("train/loss", 0.5)
save_checkpoint({"message_hub": hub.state_dict(), "state_dict": {}}, sys.argv[1])
loaded = CheckpointLoader.load_checkpoint(sys.argv[1])
assert loaded["message_hub"]["log_scalars"]["train/loss"].mean() == 0.5
"""

BY_CUSTOM_IMPORT = """
import sys
from mmengine.config import Config
open(sys.argv[1] + ".py", "w").write("custom_imports = dict(imports=['swin_mm'])")
Config.fromfile(sys.argv[1] + ".py")
"""


def run_python(code, *arguments):
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_mmengine_still_needs_the_repair(tmp_path):
    """When this fails, mmengine reads its own checkpoints again and the repair can go."""
    result = run_python(SAVE_AND_LOAD, tmp_path / "a.pth")
    assert result.returncode != 0
    assert "HistoryBuffer" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "before",
    [
        "import swin_mm; from mmengine.optim import OptimWrapper",
        BY_CUSTOM_IMPORT,
        "import mmengine.runner" + BY_CUSTOM_IMPORT,
    ],
    ids=["first", "custom-import", "custom-import-after-mmengine"],
)
def test_the_repair_holds_in_any_order_of_imports(tmp_path, before):
    result = run_python(f"{before}\n{SAVE_AND_LOAD}", tmp_path / "a.pth")
    assert result.returncode == 0, result.stderr


def test_import_stays_quick():
    result = run_python("import sys, swin_mm; assert 'torch' not in sys.modules")
    assert result.returncode == 0, result.stderr


def test_installing_again_changes_nothing():
    finders, schemes = list(sys.meta_path), dict(CheckpointLoader._schemes)
    checkpoint_loading.PATCH.install()
    assert sys.meta_path == finders
    assert schemes == CheckpointLoader._schemes


class Toy(BaseModel):
    """A backbone that mmengine's runner can train."""

    def __init__(self):
        super().__init__()
        self.backbone = SwinTransformer(**SMALL)

    def forward(self, x, mode="loss"):
        return {"loss": sum(out.square().mean() for out in self.backbone(x))}


def build_runner(work_dir, max_iters, **options):
    images = [torch.full((3, 32, 32), 0.1 * i) for i in range(4)]
    dataloader = dict(
        dataset=images,
        sampler=dict(type=DefaultSampler, shuffle=False),
        batch_size=2,
        collate_fn=lambda batch: {"x": torch.stack(batch)},
        num_workers=0,
    )
    return Runner(
        model=Toy(),
        work_dir=str(work_dir),
        train_dataloader=dataloader,
        train_cfg=dict(by_epoch=False, max_iters=max_iters),
        optim_wrapper=dict(optimizer=dict(type="AdamW", lr=1e-3)),
        param_scheduler=dict(type="LinearLR", start_factor=0.1, end=8, by_epoch=False),
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=2, by_epoch=False)),
        default_scope="mmengine",
        experiment_name=f"{work_dir.name}-{max_iters}",
        **options,
    )


def test_a_run_is_resumed_as_if_it_had_not_stopped(tmp_path):
    ema = [dict(type="EMAHook")]
    whole = build_runner(tmp_path / "whole", max_iters=4, custom_hooks=ema)
    whole.model.backbone.load_state_dict(microsoft_state())
    initial = {key: value.clone() for key, value in whole.model.state_dict().items()}
    whole.train()

    half = build_runner(tmp_path / "half", max_iters=2, custom_hooks=ema)
    half.model.load_state_dict(initial)
    half.train()
    resumed = build_runner(tmp_path / "half", max_iters=4, custom_hooks=ema, resume=True)
    resumed.train()

    assert resumed.iter == 4
    report = resumed.model.backbone.load_report
    assert report.loaded == report.total
    assert report.file == str(tmp_path / "half" / "iter_2.pth")
    for key, value in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[key], value)
        assert not torch.equal(value, initial[key]), key


def test_load_from_reads_a_published_layout(tmp_path):
    state = {f"backbone.{key}": value for key, value in microsoft_state(None).items()}
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    runner = build_runner(tmp_path, max_iters=2, load_from=str(tmp_path / "a.pth"))
    runner.load_or_resume()
    found = runner.model.state_dict()
    assert all(torch.equal(found[key], state[key]) for key in found)


@pytest.mark.parametrize("door", ["load_from", "resume"])
def test_a_damaged_checkpoint_is_refused_by_the_runner(tmp_path, door):
    trained = build_runner(tmp_path / "whole", max_iters=2)
    trained.train()
    path = tmp_path / "whole" / "iter_2.pth"
    content = bytearray(path.read_bytes())
    content[content.index(trained.model.backbone.norm0.bias.detach().numpy().tobytes())] ^= 1
    path.write_bytes(content)
    options = dict(load_from=str(path), resume=door == "resume")
    with pytest.raises(CheckpointError, match=r"iter_2\.pth: its part data/\d+ is damaged"):
        build_runner(tmp_path / "again", max_iters=4, **options).train()


NO_STATE, NO_FIT = "it holds no state of a run", "its state does not fit this run"
CHANGES = {
    "meta": (lambda content: content.pop("meta"), NO_STATE),
    "hub": (lambda content: content.pop("message_hub"), NO_STATE),
    "iter": (lambda content: content["meta"].pop("iter"), NO_STATE),
    "seed": (lambda content: content["meta"].update(seed="x"), "its seed is no number"),
    "scalars": (
        lambda content: content["message_hub"].update(log_scalars=1),
        "its message_hub is damaged",
    ),
    "no-scalar": (
        lambda content: content["message_hub"]["log_scalars"].update({"train/lr": 1.0}),
        "its message_hub is damaged",
    ),
    "schedule": (
        lambda content: content["param_schedulers"][0].update(base_values=1.0),
        "its param_schedulers are damaged",
    ),
    "no-optimizer": (lambda content: content.pop("optimizer"), "it was saved without optimizer;"),
    "no-schedules": (lambda content: content.pop("param_schedulers"), "without param_schedulers;"),
    "optimizer": (lambda content: content.update(optimizer={"state": 1}), NO_FIT),
    "moments": (
        lambda content: content["optimizer"]["state"][0].update(exp_avg=torch.zeros(2, 3)),
        r"exp_avg of backbone\.\S+ is \[2, 3\] in its optimizer and must be \[\d",
    ),
    "no-moments": (
        lambda content: content["optimizer"]["state"][1].update(exp_avg_sq="x"),
        r"exp_avg_sq of backbone\.\S+ is a str in its optimizer and must be",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_no_state_of_the_run_is_not_resumed(tmp_path, monkeypatch, name):
    change, wanted = CHANGES[name]
    monkeypatch.chdir(tmp_path)
    build_runner(tmp_path / "whole", max_iters=2).train()
    path = tmp_path / "whole" / "iter_2.pth"
    content = torch.load(path, weights_only=False)
    change(content)
    torch.save(content, path)
    runner = build_runner(tmp_path / "again", max_iters=4, load_from=str(path), resume=True)
    with pytest.raises(CheckpointError, match=f"cannot resume from .*{wanted}"):
        runner.train()


def test_the_config_in_a_checkpoint_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build_runner(tmp_path / "whole", max_iters=2).train()
    path = tmp_path / "whole" / "iter_2.pth"
    content = torch.load(path, weights_only=False)
    content["meta"]["config"] = "open('ran', 'w')"
    torch.save(content, path)
    resumed = build_runner(tmp_path / "again", max_iters=4, load_from=str(path), resume=True)
    resumed.train()
    assert resumed.iter == 4 and not (tmp_path / "ran").exists()


def test_inferencers_do_not_build_from_the_config_in_a_checkpoint(tmp_path, monkeypatch):
    """As data, too, it could name any function as the type of the model."""
    from mmdet.apis import DetInferencer

    monkeypatch.chdir(tmp_path)
    text = "model = dict(type='os.mkdir', path='ran')"
    hub = {"runtime_info": {"cfg": text}}
    torch.save({"state_dict": {}, "message_hub": hub, "meta": {"cfg": text}}, "a.pth")
    with pytest.raises(CheckpointError, match=r"a\.pth alone does not make a model.* Give the"):
        DetInferencer(weights="a.pth", device="cpu")
    assert not (tmp_path / "ran").exists()


class Marker:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves `tmp_path/served` on this machine; downloads go to `tmp_path/hub`."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield SimpleNamespace(folder=folder, url=f"http://127.0.0.1:{httpd.server_port}")
        httpd.shutdown()


def test_a_url_is_downloaded_once(server, tmp_path):
    torch.save({"state_dict": {"a": torch.ones(2)}}, server.folder / "a.pth")
    for _ in range(2):
        loaded = CheckpointLoader.load_checkpoint(f"{server.url}/a.pth?version=1")
        assert torch.equal(loaded["state_dict"]["a"], torch.ones(2))
        (server.folder / "a.pth").unlink(missing_ok=True)
    assert (tmp_path / "hub/checkpoints/a.pth").exists()


@pytest.mark.parametrize("scheme", ["path", "http", "openmmlab", "openmmlab-file", "torchvision"])
def test_no_scheme_executes_code(server, tmp_path, monkeypatch, scheme):
    marker = tmp_path / "executed"
    torch.save({"state_dict": {}, "extra": Marker(marker)}, server.folder / "evil.pth")
    address = {
        "path": str(server.folder / "evil.pth"),
        "http": f"{server.url}/evil.pth",
        "openmmlab": "openmmlab://evil",
        "openmmlab-file": "openmmlab://file",
        "torchvision": "torchvision://evil",
    }[scheme]
    urls = {"evil": f"{server.url}/evil.pth", "file": str(server.folder / "evil.pth")}
    monkeypatch.setattr(mmengine_checkpoint, "get_external_models", lambda: urls)
    monkeypatch.setattr(mmengine_checkpoint, "get_torchvision_models", lambda: urls)
    with pytest.raises(Exception, match="open") as raised:
        CheckpointLoader.load_checkpoint(address)
    assert isinstance(raised.value, CheckpointError)
    assert "carries code: it asks for" in str(raised.value)
    assert not marker.exists()


def test_a_file_of_openmmlabs_scheme_may_hold_mmengines_types(tmp_path, monkeypatch):
    from mmengine.logging import HistoryBuffer

    torch.save({"log": HistoryBuffer([0.5], [1])}, tmp_path / "a.pth")
    urls = {"a": str(tmp_path / "a.pth")}
    monkeypatch.setattr(mmengine_checkpoint, "get_external_models", lambda: urls)
    assert CheckpointLoader.load_checkpoint("openmmlab://a")["log"].mean() == 0.5


def unused_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_an_address_out_of_reach_says_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")
    url = f"http://127.0.0.1:{unused_port()}/swin_tiny.pth"
    backbone = SwinTransformer(**SMALL, init_cfg=dict(type="Pretrained", checkpoint=url))
    with pytest.raises(CheckpointError) as raised:
        backbone.init_weights()
    message = str(raised.value)
    assert message.startswith(f"cannot download {url}: this machine cannot reach it (")
    assert f"put it at {tmp_path / 'hub/checkpoints/swin_tiny.pth'}" in message
    assert "model.backbone.init_cfg.checkpoint=/path/to/swin_tiny.pth" in message
    assert "model.backbone.init_cfg=None" in message
    assert "\n" not in message
    assert os.listdir(tmp_path / "hub/checkpoints") == []


def test_an_address_without_the_file_says_so(server):
    with pytest.raises(CheckpointError, match=r"cannot download .*: the server answers 404\."):
        CheckpointLoader.load_checkpoint(f"{server.url}/none.pth")


def test_a_page_in_place_of_a_file_says_how_to_fetch_it_again(server, tmp_path):
    (server.folder / "a.pth").write_text("<!DOCTYPE html><html>Sign in</html>")
    with pytest.raises(CheckpointError, match="it is an HTML page") as raised:
        CheckpointLoader.load_checkpoint(f"{server.url}/a.pth")
    file = tmp_path / "hub/checkpoints/a.pth"
    assert f"Delete {file} to have {server.url}/a.pth fetched again" in str(raised.value)


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pth: there is no such file"):
        CheckpointLoader.load_checkpoint(str(tmp_path / "none.pth"))


@pytest.mark.parametrize("wrapper", ["state_dict", "model", None])
def test_weights_that_are_not_finite_are_refused(tmp_path, wrapper):
    file = str(tmp_path / "bad.pth")
    weights = {"a": torch.tensor([1.0, torch.nan])}
    torch.save({wrapper: weights} if wrapper else weights, file)
    with pytest.raises(CheckpointError, match="holds NaN or infinite values in a"):
        CheckpointLoader.load_checkpoint(file)
