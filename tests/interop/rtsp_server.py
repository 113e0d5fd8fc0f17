"""A camera: a scene's file over RTSP, again and again, for whoever knows the password.

    /usr/bin/python3 rtsp_server.py three.mp4

Tells its port as a JSON line; ends with its standard input.
"""

import json
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402: they need the versions

Gst.init(None)
server = GstRtspServer.RTSPServer.new()
server.set_address("127.0.0.1")
server.set_service("0")
factory = GstRtspServer.RTSPMediaFactory.new()
path = sys.argv[1]
factory.set_launch(f"filesrc location={path} ! qtdemux ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1")
auth = GstRtspServer.RTSPAuth.new()
token = GstRtspServer.RTSPToken.new()
token.set_string("media.factory.role", "viewer")
auth.add_basic(GstRtspServer.RTSPAuth.make_basic("me@home", "secret/1:2"), token)
permissions = GstRtspServer.RTSPPermissions.new()
permissions.add_permission_for_role("viewer", "media.factory.access", True)
permissions.add_permission_for_role("viewer", "media.factory.construct", True)
factory.set_permissions(permissions)
server.set_auth(auth)
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
print(json.dumps({"event": "listening", "at": 0, "port": server.get_bound_port()}), flush=True)
loop = GLib.MainLoop()
GLib.io_add_watch(0, GLib.PRIORITY_DEFAULT, GLib.IOCondition.IN | GLib.IOCondition.HUP, lambda *_: loop.quit())
loop.run()
