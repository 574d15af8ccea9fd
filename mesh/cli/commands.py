"""The registry of sub-commands: name -> where its click command is and one line of help.

A command's module is imported only when it is used, so that `mesh --help` stays fast. To add a command, add a line.
"""

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("mesh.cli.up:up_command", "Start a cluster on this machine."),
    "down": ("mesh.cli.down:down_command", "Stop the cluster."),
    "status": ("mesh.cli.status:status_command", "Show whether everything is ready."),
    "apply": ("mesh.cli.apply:apply_command", "Apply manifests."),
    "get": ("mesh.cli.get:get_command", "Show objects."),
    "inject": ("mesh.cli.inject:inject_command", "Add the sidecar to manifests."),
    "proxy-status": ("mesh.cli.proxy:proxy_status_command", "Show which proxy has which configuration."),
    "proxy-config": ("mesh.cli.proxy:proxy_config_command", "Show one proxy's configuration."),
    "demo": ("mesh.cli.demo.command:demo_command", "Show what the mesh does, measured."),
}
