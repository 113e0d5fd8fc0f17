"""FastRTC's pass-through, with its own protocol; a page's input hook beside it, as its guide has it."""

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = "1"

from fastapi import Body, FastAPI  # noqa: E402
from fastrtc import Stream  # noqa: E402

import serving  # noqa: E402

stream = Stream(
    handler=lambda frame: frame,
    modality="video",
    mode="send-receive",
    # More than ever come, and for as long as they stay.
    concurrency_limit=100,
    time_limit=None,
    # Without STUN servers: none can be reached, and none is needed.
    server_rtc_configuration={"iceServers": []},
    verbose=False,
)
app = FastAPI()
stream.mount(app)


@app.post("/input_hook")
async def input_hook(body: dict = Body()):
    # The handler is not called before an input was set; the first of the arguments is replaced by the frame.
    stream.set_input(body["webrtc_id"], None)
    return {"status": "ok"}


if __name__ == "__main__":
    serving.arguments()
    serving.serve(app)
