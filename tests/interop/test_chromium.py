"""Headless Chromium uses the built-in page as a visitor does."""

import json
import subprocess
import time

import pytest
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import sync_playwright

import scenes
from conftest import ARTIFACTS, BROWSER_FLAGS, CHAIN, PATIENCE, ROOT, TURN_PASSWORD, figure, free_port, turn

# A second is the promise on an idle machine with a release build; this run has neither.
FIRST_RESULT_MS = 5000
# The boxes of the newest result, in the page's own language.
SEEN = "Object.values(rtcinference.lastResult.serialized_output_data)[0].predictions"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """A browser whose camera shows a scene with known boxes."""
    camera = tmp_path_factory.mktemp("camera") / "scene.y4m"
    scenes.write_y4m(camera, "three")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=[*BROWSER_FLAGS, f"--use-file-for-fake-video-capture={camera}"],
        )
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """A fresh page whose requests are all watched."""
    context = chromium.new_context(viewport={"width": 900, "height": 1100})
    context.set_default_timeout(PATIENCE * 1000)
    page = context.new_page()
    page.asked, page.trouble = [], []
    context.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.trouble.append(str(error)))
    page.on("console", lambda message: message.type == "error" and page.trouble.append(message.text))
    yield page
    context.close()
    assert not page.trouble


def start(page):
    """Presses Start; how many milliseconds until a result was there."""
    return page.evaluate(
        """() => new Promise((done) => {
            const pressed = performance.now();
            document.getElementById("start").click();
            (function look() {
                if (rtcinference.results > 0) done(performance.now() - pressed);
                else if (rtcinference.state === "failed") done(document.getElementById("error").textContent);
                else requestAnimationFrame(look);
            })();
        })"""
    )


def until(page, condition):
    """Waits for a condition in the page; Playwright's own wait evaluates text, which the page's policy forbids."""
    page.evaluate(
        f"""() => new Promise((done, fail) => {{
            const late = setTimeout(() => fail(new Error("in vain for " + {json.dumps(condition)})), {PATIENCE * 1000});
            (function look() {{
                if ({condition}) {{ clearTimeout(late); done(); }} else requestAnimationFrame(look);
            }})();
        }})"""
    )


def overlay_drawn(page):
    """Whether the last result's first box has its edge on the overlay, and a far corner has nothing."""
    return page.evaluate(
        """() => {
            const overlay = document.getElementById("overlay");
            const { width, height } = rtcinference.lastResult.video_metadata;
            const [output] = Object.values(rtcinference.lastResult.serialized_output_data);
            const box = output.predictions[0];
            const scale = overlay.width / width;
            const alpha = (x, y) => overlay.getContext("2d").getImageData(Math.round(x * scale), Math.round(y * scale), 1, 1).data[3];
            return { edge: alpha(box.x, box.y + box.height / 2), inside: alpha(box.x, box.y), shape: [overlay.width, overlay.height] };
        }"""
    )


def test_camera_to_boxes(serve, page):
    server = serve()
    page.goto(server.url)
    # The choice of device: the camera and the canvas.
    until(page, "document.querySelectorAll('#source option').length >= 2")
    choices = page.eval_on_selector_all("#source option", "options => options.map(o => o.value)")
    assert choices[0].startswith("camera:") and choices[-1] == "canvas"
    assert page.input_value("#source") == choices[0]

    took = start(page)
    assert isinstance(took, float | int), took
    assert took < FIRST_RESULT_MS
    until(page, "rtcinference.results >= 30 && rtcinference.latency")
    assert page.evaluate("rtcinference.state") == "running"
    assert page.evaluate("rtcinference.fps") >= 5
    # A latency is measured only when a result names a frame that the browser sent.
    assert page.evaluate("rtcinference.latency.kind").startswith("measured")

    result = page.evaluate("rtcinference.lastResult")
    assert {box[0] for box in scenes.predicted(result)} == {"circle", "square", "triangle"}
    drawn = overlay_drawn(page)
    assert drawn["edge"] > 0 and drawn["inside"] == 0, drawn
    page.screenshot(path=ARTIFACTS / "camera.png", full_page=True)
    (ARTIFACTS / "camera.json").write_text(
        json.dumps({"first_result_ms": took, "fps": page.evaluate("rtcinference.fps"), "latency": page.evaluate("rtcinference.latency")})
    )

    page.click("#stop")
    assert page.evaluate("rtcinference.state") == "idle"
    assert page.is_enabled("#start")
    assert server.message("rtc-connection-ended")["reason"] == "client-closed"

    # And once more on the same page.
    assert isinstance(start(page), float | int)
    outside = [url for url in page.asked if not url.startswith((server.url, "data:", "blob:"))]
    assert page.asked and not outside


def test_drawing_on_the_canvas_is_seen(serve, page):
    server = serve()
    page.goto(server.url)
    page.select_option("#source", "canvas")
    page.uncheck("#symbols")
    assert isinstance(start(page), float | int)

    paper = page.locator("#paper").bounding_box()
    scale = paper["width"] / 640
    stroke = scenes.SHAPES["circle"]
    at = [(paper["x"] + (320 + 90 * x) * scale, paper["y"] + (240 + 90 * y) * scale) for x, y in [*stroke, stroke[0]]]
    page.mouse.move(*at[0])
    page.mouse.down()
    for point in at:
        page.mouse.move(*point)
    page.mouse.up()
    until(page, f"{SEEN}.some((p) => p.class === 'circle' && Math.hypot(p.x / 640 - 0.5, p.y / 480 - 0.5) < 0.1)")
    page.screenshot(path=ARTIFACTS / "canvas.png", full_page=True)
    page.click("#clear")
    until(page, f"{SEEN}.length === 0")
    # The moving symbols are seen as well.
    page.check("#symbols")
    until(page, f"{SEEN}.length >= 3")
    page.screenshot(path=ARTIFACTS / "symbols.png", full_page=True)


def test_page_without_cameras_starts_with_the_canvas(serve, page):
    # Browsers give no cameras to a page that comes from another machine without https.
    server = serve(f'insecure=true video-chain="{CHAIN}"', host="10.99.0.1")
    page.goto(server.url)
    assert page.evaluate("navigator.mediaDevices") is None
    assert page.eval_on_selector_all("#source option", "options => options.map(o => o.value)") == ["canvas"]
    assert isinstance(start(page), float | int)
    until(page, f"{SEEN}.length >= 3")


def test_choice_made_while_cameras_are_listed_is_kept(serve, page):
    page.add_init_script(
        """const list = navigator.mediaDevices.enumerateDevices.bind(navigator.mediaDevices);
        navigator.mediaDevices.enumerateDevices = async () => {
            await new Promise((wake) => { window.listCameras = wake; });
            return list();
        };"""
    )
    page.goto(serve().url)
    page.select_option("#source", "canvas")
    page.evaluate("listCameras()")
    until(page, "document.querySelectorAll('#source option').length > 1")
    assert page.input_value("#source") == "canvas"
    assert page.is_visible("#pen")


def test_leaving_the_page_closes_the_connection(serve, page):
    server = serve()
    page.goto(server.url)
    assert isinstance(start(page), float | int)
    page.goto("about:blank")
    assert server.message("rtc-connection-ended")["reason"] == "client-closed"


def test_full_server_is_told_and_start_works_again(serve, visit, page):
    server = serve("max-connections=1 video-chain=fakesink")
    visitor = visit(server)
    visitor.event("open")
    page.goto(server.url)
    page.click("#start")
    page.wait_for_selector("#error:not([hidden])")
    assert "full" in page.text_content("#error")
    assert page.is_enabled("#start") and not page.is_enabled("#stop")
    # The refusal itself is what the console complains of.
    page.trouble.clear()
    visitor.close()
    server.message("rtc-connection-ended")
    page.click("#start")
    until(page, "rtcinference.state === 'running'")
    assert page.is_hidden("#error")


def test_refused_camera_is_told(serve, page):
    server = serve("video-chain=fakesink")
    page.add_init_script("navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('no', 'NotAllowedError'); }")
    page.goto(server.url)
    until(page, "document.querySelectorAll('#source option').length >= 2")
    page.click("#start")
    page.wait_for_selector("#error:not([hidden])")
    assert "refused" in page.text_content("#error")
    assert page.is_enabled("#start")


def forgive_the_network(page):
    """A server that has gone cannot be reached: the browser says so on its own, each time the page tries."""
    page.trouble[:] = [said for said in page.trouble if "net::ERR_" not in said]


def test_server_that_goes_away_is_told(serve, page):
    server = serve()
    page.goto(server.url)
    assert isinstance(start(page), float | int)
    server.process.kill()
    page.wait_for_selector("#error:not([hidden])")
    assert "lost" in page.text_content("#error") or "ended" in page.text_content("#error")
    assert page.is_enabled("#start")
    forgive_the_network(page)


def test_shutdown_is_told(serve, page):
    server = serve()
    page.goto(server.url)
    assert isinstance(start(page), float | int)
    server.interrupt()
    page.wait_for_selector("#error:not([hidden])", timeout=5000)
    assert "shut down" in page.text_content("#error")
    forgive_the_network(page)


def test_end_of_the_visit_is_told_with_its_reason(serve, page):
    server = serve(f'connection-timeout=2000 video-chain="{CHAIN}"')
    page.goto(server.url)
    assert isinstance(start(page), float | int)
    page.wait_for_selector("#error:not([hidden])")
    assert "time is up" in page.text_content("#error")
    assert server.message("rtc-connection-ended")["reason"] == "time-limit"
    assert page.is_enabled("#start")


ASKS = """
import sys
import gi
gi.require_version("Gst", "1.0")
from gi.repository import Gst
Gst.init(None)
source = Gst.parse_launch(sys.argv[1])
pipeline = Gst.Pipeline.new()
pipeline.add(source)
pipeline.set_state(Gst.State.PLAYING)
for line in sys.stdin:
    source.set_property("desired-playing-state", line.strip())
pipeline.set_state(Gst.State.NULL)
"""


def test_page_starts_and_stops_when_it_is_asked_to(plugin_env, page):
    url = f"http://127.0.0.1:{free_port()}"
    line = f'rtcsessionsrc listen={url} video-chain="{CHAIN}"'
    with subprocess.Popen(
        ["/usr/bin/python3", "-c", ASKS, line], env=plugin_env, cwd=ROOT, stdin=subprocess.PIPE, text=True
    ) as application:
        try:
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    page.goto(url)
                    break
                except PlaywrightError:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
            for wish, state in ("playing", "running"), ("stopped", "idle"), ("playing", "running"), ("any", "running"):
                print(wish, file=application.stdin, flush=True)
                page.wait_for_selector(f"#status[data-state={state}]")
            print("stopped", file=application.stdin, flush=True)
            page.wait_for_selector("#error:not([hidden])")
            assert "asked to stop" in page.text_content("#error")
            page.goto("about:blank")
        finally:
            application.stdin.close()
            application.wait(PATIENCE)
    forgive_the_network(page)


def test_page_goes_through_the_relay_alone_when_it_is_told_to(coturn, serve, page):
    server = serve(f'ice-transport-policy=relay video-chain="{CHAIN}" {turn(coturn())}')
    page.add_init_script(
        """const Plain = RTCPeerConnection;
        window.RTCPeerConnection = class extends Plain {
            constructor(...args) { super(...args); window.connection = this; }
        };"""
    )
    page.goto(server.url)
    took = start(page)
    assert isinstance(took, (int, float)), took
    way = page.evaluate(
        """async () => {
            const stats = await connection.getStats();
            const transport = [...stats.values()].find((entry) => entry.type === "transport");
            const pair = stats.get(transport.selectedCandidatePairId);
            return [stats.get(pair.localCandidateId).candidateType, stats.get(pair.remoteCandidateId).candidateType];
        }"""
    )
    assert way == ["relay", "relay"]
    assert figure(server, 'relay_allocations_total{outcome="made"}') == 1
    assert TURN_PASSWORD not in page.inner_text("body")
