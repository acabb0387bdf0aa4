"""Being here, it lets every test import the helpers in this folder, such as `toy_task`."""
