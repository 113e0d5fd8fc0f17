// The built-in page: a picture goes to the server it was loaded from, results come back on a data channel
// and are drawn over the picture. The same file is the worker that tells when each encoded frame left.
"use strict";

if (typeof document === "undefined") {
  tellWhenFramesLeave();
} else {
  window.addEventListener("DOMContentLoaded", page);
}

/** Worker side: passes every encoded frame on untouched and reports its RTP timestamp. */
function tellWhenFramesLeave() {
  self.onrtctransform = ({ transformer }) => {
    const tap = new TransformStream({
      transform(frame, out) {
        const { rtpTimestamp } = frame.getMetadata();
        // performance.now() of a worker has another origin than the page's.
        const left = performance.timeOrigin + performance.now();
        out.enqueue(frame);
        self.postMessage({ rtpTimestamp: rtpTimestamp ?? frame.timestamp, left });
      },
    });
    transformer.readable.pipeThrough(tap).pipeTo(transformer.writable).catch(() => {});
  };
}

/** How the server is asked: with the token of this page's address, or the one that was typed in. */
const server = {
  token: "",
  /** Called when the server wants another token than the one it was shown. */
  onrefused() {},

  /** What no header may hold is in no token. */
  setToken(token) {
    this.token = token.replace(/[^\x21-\x7e]/g, "");
  },

  /** Takes the token from `#token=…`, which no server is sent; says whether there is one. */
  takeToken() {
    const found = location.hash.match(/[#&]token=([^&]*)/);
    if (found) this.setToken(found[1]);
    return Boolean(found);
  },

  async ask(path, { headers, ...options } = {}) {
    const token = this.token;
    const response = await fetch(path, { ...options, headers: { ...headers, ...(token && { Authorization: `Bearer ${token}` }) } });
    if (response.status === 401 && token === this.token) this.onrefused();
    return response;
  },

  /**
   * Reads server-sent events' data as EventSource does, which cannot send a token. The returned function ends it.
   * Whoever is refused is not asked again.
   */
  events(path, onmessage) {
    const aborter = new AbortController();
    const { signal } = aborter;
    const read = async () => {
      const response = await this.ask(path, { signal });
      if (!response.ok) return response.status >= 500;
      const texts = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { value, done } = await texts.read();
        if (done) return true;
        const events = (text + value).split("\n\n");
        text = events.pop();
        for (const event of events) {
          const data = event.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart());
          if (data.length && !signal.aborted) onmessage(data.join("\n"));
        }
      }
    };
    const go = async () => {
      const again = await read().catch(() => true);
      if (again && !signal.aborted) setTimeout(() => { if (!signal.aborted) go(); }, 3000);
    };
    go();
    return () => aborter.abort();
  },
};

function page() {
  const $ = (id) => document.getElementById(id);
  const drawing = drawingCanvas($("paper"), {
    colour: $("pen-colour"), width: $("pen-width"), symbols: $("symbols"), clear: $("clear"),
  });
  const overlay = boxesOver($("stage"), $("overlay"));
  const meter = resultMeter();
  let call = null;
  let state = "idle";

  // What tests and the curious may read.
  window.rtcinference = Object.freeze({
    get state() { return state; },
    get results() { return meter.results; },
    get fps() { return meter.rate(); },
    get lastResult() { return meter.last; },
    get latency() { return meter.latency(); },
  });

  const words = {
    idle: "Ready", starting: "Starting…", connecting: "Connecting…", running: "Running",
    interrupted: "Interrupted, waiting…", failed: "Failed",
  };

  function enter(next) {
    state = next;
    $("status").dataset.state = next;
    $("status").textContent = words[next];
    const busy = next !== "idle" && next !== "failed";
    $("start").disabled = busy;
    $("source").disabled = busy;
    $("stop").disabled = !busy;
  }

  function complain(message) {
    $("error").textContent = message;
    $("error").hidden = !message;
  }

  async function start() {
    complain("");
    meter.reset();
    enter("starting");
    const source = $("source").value;
    // Everything below checks that it is still the call of this press: Stop may come at any await.
    const mine = call = new Call({
      onstate: (next) => { if (call === mine) enter(next); },
      onend: (why) => { if (call === mine) { finish(); enter("failed"); complain(why); } },
      onwish: (wish) => { if (call === mine) follow(wish); },
      onresult: (result) => { if (call === mine) show(result); },
      onreturn: (stream) => { if (call === mine) showReturned(stream); },
      onsent: meter.sent,
      onroundtrip: meter.roundTrip,
    });
    listen();
    try {
      const stream = source === "canvas" ? drawing.stream() : await openCamera(source.slice("camera:".length));
      if (call !== mine) return stopTracks(stream);
      if (source !== "canvas") {
        showCamera(stream);
        listSources();
      }
      await mine.connect(stream);
    } catch (error) {
      if (call !== mine) return;
      finish();
      enter("failed");
      complain(explain(error));
    }
  }

  function finish() {
    const ended = call;
    call = null;
    ended?.close();
    overlay.clear();
    $("camera").srcObject = null;
    showReturned(null);
    preview();
    listen();
  }

  function stop() {
    finish();
    enter("idle");
  }

  function show(result) {
    meter.take(result);
    overlay.draw(result);
    const errors = result.errors ?? [];
    complain(errors.map((e) => (typeof e === "string" ? e : e.message ?? JSON.stringify(e))).join("\n"));
  }

  function preview() {
    const drawn = $("source").value === "canvas";
    $("paper").hidden = !drawn;
    $("camera").hidden = drawn;
    $("pen").hidden = !drawn;
    $("stage").style.aspectRatio = "4 / 3";
  }

  function showCamera(stream) {
    $("camera").srcObject = stream;
    $("camera").play().catch(() => {});
  }

  /** What the server sends back takes the stage with its first picture: it has its own boxes, on their own frames. */
  function showReturned(stream) {
    const returned = $("returned");
    returned.hidden = true;
    $("overlay").hidden = false;
    returned.srcObject = stream;
    if (!stream) return;
    returned.onplaying = () => { returned.hidden = false; $("overlay").hidden = true; };
    returned.play().catch(() => {});
  }

  async function listSources() {
    let cameras = [];
    try {
      cameras = (await navigator.mediaDevices.enumerateDevices()).filter((d) => d.kind === "videoinput");
    } catch {
      // No camera access in an insecure context: the canvas remains.
    }
    // Read only now: somebody may have chosen while the browser looked for cameras.
    const chosen = $("source").value;
    const touched = $("source").dataset.touched;
    const options = cameras.map((d, i) => new Option(d.label || `Camera ${i + 1}`, `camera:${d.deviceId}`));
    options.push(new Option("Draw on a canvas", "canvas"));
    $("source").replaceChildren(...options);
    // Before permission a camera has neither name nor id; afterwards it is the one that was opened.
    const open = $("camera").srcObject?.getVideoTracks()[0]?.getSettings().deviceId;
    const wanted = touched || state !== "idle" ? [open && `camera:${open}`, chosen] : [];
    const kept = wanted.find((value) => options.some((o) => o.value === value));
    $("source").value = kept ?? options[0].value;
    preview();
  }

  async function tellLaunch() {
    try {
      const response = await server.ask("info");
      if (response.status === 401) throw new Error("the server asks for its token");
      const info = await response.json();
      $("launch").textContent = info.launch || "(the server was not told its launch line)";
      $("version").textContent = [info.version && `version ${info.version}`, info.video_codecs?.join(", ")]
        .filter(Boolean).join(" · ");
    } catch (error) {
      $("launch").textContent = `(${error instanceof TypeError ? "the server does not answer" : error.message})`;
    }
  }

  /** The server may ask every page to start or to stop. Whoever stops all the same is not asked again. */
  let wished = null;
  function follow(wish) {
    const asked = wish !== wished;
    wished = wish;
    if (wish === true && asked && !call) start();
    if (wish === false && call) { stop(); complain("The server asked to stop."); }
  }

  // Only while nothing runs: a call is asked on its own channel, and a browser has few connections to a server.
  let leave = null;
  function listen() {
    leave?.();
    leave = null;
    if (call || document.hidden) return;
    leave = server.events("desired-playing-state", (data) => follow(JSON.parse(data)));
  }
  document.addEventListener("visibilitychange", listen);

  /** A server with a token is asked everything again when there is another one. */
  function enterAnew() {
    $("entry").hidden = true;
    complain("");
    tellLaunch();
    listen();
  }
  server.onrefused = () => {
    if (!$("entry").hidden) return;
    if (server.token) complain("That is not this server's token.");
    $("entry").hidden = false;
    $("token").focus();
  };
  $("entry").addEventListener("submit", (event) => {
    event.preventDefault();
    server.setToken($("token").value);
    $("token").value = "";
    enterAnew();
  });
  window.addEventListener("hashchange", () => { if (server.takeToken()) enterAnew(); });

  $("controls").addEventListener("submit", (event) => { event.preventDefault(); start(); });
  $("stop").addEventListener("click", stop);
  $("source").addEventListener("change", () => { $("source").dataset.touched = "yes"; preview(); });
  $("camera").addEventListener("resize", () => {
    const { videoWidth, videoHeight } = $("camera");
    if (videoWidth) $("stage").style.aspectRatio = `${videoWidth} / ${videoHeight}`;
  });
  navigator.mediaDevices?.addEventListener?.("devicechange", () => { if (!call) listSources(); });
  // The server shall not have to find out that we left; a page that comes back from the cache is ready again.
  window.addEventListener("pagehide", () => { if (call) stop(); });

  setInterval(() => {
    const latency = meter.latency();
    $("rate").textContent = meter.results ? meter.rate().toFixed(1) : "–";
    $("latency").textContent = latency ? `${latency.ms.toFixed(0)} ms` : "–";
    $("latency-kind").textContent = latency ? latency.kind : "";
    $("dropped").textContent = meter.results ? meter.dropped : "–";
    $("seen").textContent = meter.last ? predictions(meter.last).map((p) => p.class).join(", ") || "nothing" : "–";
  }, 250);

  server.takeToken();
  listSources();
  tellLaunch();
  listen();
}

async function openCamera(deviceId) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error("This browser gives no camera to pages without https, except from localhost. Draw on the canvas instead.");
  }
  const video = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } };
  if (deviceId) video.deviceId = { exact: deviceId };
  return navigator.mediaDevices.getUserMedia({ video, audio: false });
}

function explain(error) {
  switch (error?.name) {
    case "NotAllowedError": return "The camera was refused. Allow it in the browser's address bar, or draw on the canvas.";
    case "NotFoundError":
    case "OverconstrainedError": return "No such camera. Choose another one, or draw on the canvas.";
    case "NotReadableError": return "The camera is in use by another program, or broken.";
    default: return error?.message || String(error);
  }
}

function stopTracks(stream) {
  for (const track of stream.getTracks()) track.stop();
}

/** The boxes of a result, whatever the inference element's `output-name`. */
function predictions(result) {
  for (const output of Object.values(result.serialized_output_data ?? {})) {
    if (Array.isArray(output?.predictions)) return output.predictions;
  }
  return [];
}

/** Why the server ended the connection, in words. */
function farewell({ termination_reason: reason, detail, errors }) {
  const said = (errors?.length ? errors.join("\n") : detail) || {
    "time-limit": "the time is up", "server-shutdown": "it is being shut down",
  }[reason] || "";
  return `The server ended the connection${said ? `: ${said}` : "."}`;
}

/** One connection: offer, answer, results, end. Ends once, by `close` or by telling `onend` why. */
class Call {
  /** How long an interrupted connection may take to come back. */
  static PATIENCE_MS = 5000;
  /** Without a STUN server all candidates are there at once; a stuck network interface shall not hold us. */
  static GATHERING_MS = 200;
  static CONNECTING_MS = 10000;

  constructor(handlers) {
    this.handlers = handlers;
    this.timers = new Set();
    this.aborter = new AbortController();
    this.ended = false;
  }

  async connect(stream) {
    this.stream = stream;
    if (this.ended) return stopTracks(stream);
    const config = await this.rtcConfig();
    if (this.ended) return;
    const pc = this.pc = new RTCPeerConnection(config);
    const channel = pc.createDataChannel("results");
    channel.onmessage = ({ data }) => this.receive(data);
    channel.onclose = () => this.end("The server ended the connection.");
    pc.onconnectionstatechange = () => this.follow(pc.connectionState);
    // Only where the answer says that something comes back.
    pc.ontrack = ({ track }) => { if (!this.ended) this.handlers.onreturn(new MediaStream([track])); };

    const [track] = stream.getVideoTracks();
    track.onended = () => this.end("The camera was taken away.");
    const sender = pc.addTrack(track, stream);
    this.watchFrames(sender);

    await pc.setLocalDescription();
    await this.gathered();
    this.handlers.onstate("connecting");
    const answer = await this.post(pc.localDescription);
    if (this.ended) return;
    this.watchdog = this.after(Call.CONNECTING_MS, () => this.end("The connection could not be made: no way through the network."));
    await pc.setRemoteDescription({ type: answer.type, sdp: answer.sdp });
    this.watchRoundTrip();
  }

  /** With the ICE servers that the server's application names; without any the local network is enough. */
  async rtcConfig() {
    try {
      const response = await server.ask("rtc-config", { signal: this.aborter.signal });
      return response.ok ? await response.json() : {};
    } catch {
      return {};
    }
  }

  async post({ sdp, type }) {
    let response;
    try {
      response = await server.ask("offer", {
        method: "POST", headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ sdp, type }), signal: this.aborter.signal,
      });
    } catch {
      throw new Error("The server does not answer.");
    }
    const body = await response.json().catch(() => ({}));
    if (response.ok) return body;
    const said = body.message || body.error || `status ${response.status}`;
    throw new Error(response.status === 503 ? `The server is full: ${said}` : `The server refused: ${said}`);
  }

  gathered() {
    const { pc } = this;
    return new Promise((done) => {
      const look = () => { if (pc.iceGatheringState === "complete") done(); };
      pc.addEventListener("icegatheringstatechange", look);
      this.after(Call.GATHERING_MS, done);
      look();
    });
  }

  follow(connectionState) {
    this.cancel(this.patience);
    switch (connectionState) {
      case "connected":
        this.cancel(this.watchdog);
        this.handlers.onstate("running");
        break;
      case "disconnected":
        // May come back by itself; if it does not, we are the ones to say so.
        this.handlers.onstate("interrupted");
        this.patience = this.after(Call.PATIENCE_MS, () => this.end("The connection was lost."));
        break;
      case "failed":
        this.end("The connection failed.");
        break;
      case "closed":
        this.end("The server ended the connection.");
        break;
    }
  }

  receive(data) {
    let result;
    try {
      result = JSON.parse(data);
    } catch {
      return;
    }
    if (this.ended) return;
    if (result.desired_playing_state !== undefined) this.handlers.onwish(result.desired_playing_state);
    else if (result.processing_complete) this.end(farewell(result));
    else if (result.video_metadata) this.handlers.onresult(result);
  }

  /** Tells when each frame left the encoder, where the browser lets us look. */
  watchFrames(sender) {
    if (typeof RTCRtpScriptTransform === "undefined") return;
    try {
      this.worker = new Worker("page.js");
      this.worker.onmessage = ({ data }) => this.handlers.onsent(data.rtpTimestamp, data.left);
      sender.transform = new RTCRtpScriptTransform(this.worker);
    } catch {
      this.worker?.terminate();
    }
  }

  watchRoundTrip() {
    this.statistics = setInterval(async () => {
      for (const entry of (await this.pc.getStats()).values()) {
        if (entry.type === "candidate-pair" && entry.nominated && entry.currentRoundTripTime !== undefined) {
          this.handlers.onroundtrip(entry.currentRoundTripTime * 1000);
        }
      }
    }, 1000);
  }

  after(ms, then) {
    const timer = setTimeout(() => { this.timers.delete(timer); then(); }, ms);
    this.timers.add(timer);
    return timer;
  }

  cancel(timer) {
    clearTimeout(timer);
    this.timers.delete(timer);
  }

  end(why) {
    if (this.ended) return;
    this.close();
    this.handlers.onend(why);
  }

  close() {
    this.ended = true;
    this.timers.forEach(clearTimeout);
    clearInterval(this.statistics);
    this.aborter.abort();
    this.pc?.close();
    this.worker?.terminate();
    if (this.stream) stopTracks(this.stream);
  }
}

/** Counts results, and estimates how old each was when it came. */
function resultMeter() {
  const WINDOW_MS = 2000;
  const FRAMES_REMEMBERED = 300;
  const AGES_REMEMBERED = 31;
  const now = () => performance.timeOrigin + performance.now();
  let arrivals, first, sent, ages, kind, roundTripMs;
  const meter = {
    reset() {
      meter.results = 0;
      meter.dropped = 0;
      meter.last = null;
      arrivals = [];
      first = 0;
      sent = new Map();
      ages = [];
      kind = "";
      roundTripMs = null;
    },
    sent(rtpTimestamp, left) {
      sent.set(rtpTimestamp, left);
      if (sent.size > FRAMES_REMEMBERED) sent.delete(sent.keys().next().value);
    },
    roundTrip(ms) { roundTripMs = ms; },
    take(result) {
      const at = now();
      first ||= at;
      meter.results += 1;
      meter.dropped += result.dropped ?? 0;
      meter.last = result;
      arrivals.push(at);
      forget(at);
      const left = sent.get(result.video_metadata?.rtp_timestamp);
      if (left !== undefined) age(at - left, "measured, from the encoded frame to its result");
      else if (roundTripMs !== null && result.timing_us && !kind.startsWith("measured")) {
        age(result.timing_us.total / 1000 + roundTripMs / 2, "estimated: server's time + half the round trip");
      }
    },
    rate() {
      const at = now();
      forget(at);
      return arrivals.length / (Math.max(Math.min(WINDOW_MS, at - first), 250) / 1000);
    },
    /** The median of the newest results. */
    latency() {
      const sorted = [...ages].sort((a, b) => a - b);
      return sorted.length ? { ms: sorted[sorted.length >> 1], kind } : null;
    },
  };
  function age(ms, how) {
    kind = how;
    ages.push(ms);
    if (ages.length > AGES_REMEMBERED) ages.shift();
  }
  function forget(at) {
    while (arrivals.length && arrivals[0] < at - WINDOW_MS) arrivals.shift();
  }
  meter.reset();
  return meter;
}

/**
 * Draws a result's boxes over the picture. The newest result goes on the live picture at once; holding frames
 * back until their own result is there would pair `rtp_timestamp` with what `RTCRtpScriptTransform` saw.
 */
function boxesOver(stage, canvas) {
  const pen = canvas.getContext("2d");
  const hues = new Map();
  const colour = (name) => {
    // The golden angle keeps neighbours apart however many classes come.
    if (!hues.has(name)) hues.set(name, Math.round(hues.size * 137.5 + 210) % 360);
    return `hsl(${hues.get(name)} 85% 38%)`;
  };
  return {
    clear() { pen.clearRect(0, 0, canvas.width, canvas.height); },
    draw(result) {
      const { width, height } = result.video_metadata ?? {};
      const shape = [stage.clientWidth * devicePixelRatio, stage.clientHeight * devicePixelRatio].map(Math.round);
      if (canvas.width !== shape[0] || canvas.height !== shape[1]) [canvas.width, canvas.height] = shape;
      else this.clear();
      if (!width || !height) return;
      // The picture keeps its own shape inside the stage.
      const scale = Math.min(shape[0] / width, shape[1] / height);
      const left = (shape[0] - width * scale) / 2;
      const top = (shape[1] - height * scale) / 2;
      const text = 14 * devicePixelRatio;
      pen.font = `600 ${text}px system-ui, sans-serif`;
      pen.textBaseline = "middle";
      pen.lineWidth = 3 * devicePixelRatio;
      for (const box of predictions(result)) {
        const x = left + (box.x - box.width / 2) * scale;
        const y = top + (box.y - box.height / 2) * scale;
        pen.strokeStyle = pen.fillStyle = colour(box.class);
        pen.strokeRect(x, y, box.width * scale, box.height * scale);
        const label = `${box.class} ${Math.round(box.confidence * 100)} %`;
        const tag = { width: pen.measureText(label).width + text * 0.8, height: text * 1.5 };
        const tagY = y >= tag.height ? y - tag.height : y;
        pen.fillRect(x - pen.lineWidth / 2, tagY, tag.width, tag.height);
        pen.fillStyle = "#fff";
        pen.fillText(label, x - pen.lineWidth / 2 + text * 0.4, tagY + tag.height / 2);
      }
    },
  };
}

/** A sheet with symbols drifting over it, into which one can draw; its picture can be sent. */
function drawingCanvas(canvas, tools) {
  const PAPER = "#f6f4ee";
  const SPEED = 60; // pixels a second
  const pen = canvas.getContext("2d");
  const { width, height } = canvas;
  const sheet = Object.assign(document.createElement("canvas"), { width, height });
  const ink = sheet.getContext("2d");
  ink.lineCap = ink.lineJoin = "round";

  const names = Object.keys(SYMBOLS).sort(() => Math.random() - 0.5);
  const inks = ["#c0392b", "#1f618d", "#1e8449", "#7d3c98", "#b9770e"];
  const symbols = names.slice(0, 4).map((name, i) => {
    const heading = Math.random() * 2 * Math.PI;
    return {
      name, filled: i % 2 === 0, colour: inks[i], size: 36 + 10 * i,
      x: width * (0.2 + 0.2 * i), y: height * (i % 2 ? 0.7 : 0.3),
      dx: Math.cos(heading) * SPEED, dy: Math.sin(heading) * SPEED, angle: (Math.random() - 0.5) * 0.6, turn: (Math.random() - 0.5) * 0.6,
    };
  });
  tools.symbols.checked = !matchMedia("(prefers-reduced-motion: reduce)").matches;

  const strokes = new Map(); // pointer id → where it was last
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * width / box.width, (event.clientY - box.top) * height / box.height];
  };
  const line = (from, to) => {
    ink.strokeStyle = tools.colour.value;
    ink.lineWidth = Number(tools.width.value);
    ink.beginPath();
    ink.moveTo(...from);
    ink.lineTo(...to);
    ink.stroke();
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    const at = place(event);
    strokes.set(event.pointerId, at);
    line(at, at);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!strokes.has(event.pointerId)) return;
    const steps = event.getCoalescedEvents?.() ?? [];
    for (const step of steps.length ? steps : [event]) {
      const at = place(step);
      line(strokes.get(event.pointerId), at);
      strokes.set(event.pointerId, at);
    }
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => strokes.delete(event.pointerId));
  }
  tools.clear.addEventListener("click", () => ink.clearRect(0, 0, width, height));

  let before = performance.now();
  function paint(at) {
    const seconds = Math.min(0.1, (at - before) / 1000);
    before = at;
    pen.fillStyle = PAPER;
    pen.fillRect(0, 0, width, height);
    pen.drawImage(sheet, 0, 0);
    if (tools.symbols.checked) symbols.forEach((symbol) => { drift(symbol, seconds); stamp(pen, symbol); });
    requestAnimationFrame(paint);
  }
  function drift(symbol, seconds) {
    const edge = symbol.size + 6;
    symbol.x += symbol.dx * seconds;
    symbol.y += symbol.dy * seconds;
    symbol.angle += symbol.turn * seconds;
    if (symbol.x < edge) symbol.dx = Math.abs(symbol.dx);
    if (symbol.x > width - edge) symbol.dx = -Math.abs(symbol.dx);
    if (symbol.y < edge) symbol.dy = Math.abs(symbol.dy);
    if (symbol.y > height - edge) symbol.dy = -Math.abs(symbol.dy);
  }
  requestAnimationFrame(paint);
  return {
    stream: () => {
      const stream = canvas.captureStream(30);
      // A drawing is told by its outlines: rather fewer pictures than smaller ones.
      stream.getVideoTracks()[0].contentHint = "detail";
      return stream;
    },
  };
}

function stamp(pen, { name, filled, colour, size, x, y, angle }) {
  pen.save();
  pen.translate(x, y);
  pen.rotate(angle);
  pen.scale(size, size);
  pen.beginPath();
  SYMBOLS[name](pen);
  pen.closePath();
  pen.restore();
  pen.lineJoin = "round";
  if (filled) {
    pen.fillStyle = colour;
    pen.fill();
  } else {
    pen.strokeStyle = colour;
    pen.lineWidth = 6;
    pen.stroke();
  }
}

/** Outlines within the unit circle. */
const SYMBOLS = {
  circle: (pen) => pen.arc(0, 0, 0.95, 0, 2 * Math.PI),
  square: (pen) => pen.rect(-0.8, -0.8, 1.6, 1.6),
  triangle: (pen) => polygon(pen, [[0, -0.95], [0.9, 0.7], [-0.9, 0.7]]),
  star: (pen) => polygon(pen, Array.from({ length: 10 }, (_, i) => {
    const radius = i % 2 ? 0.4 : 1;
    return [radius * Math.sin(i * Math.PI / 5), -radius * Math.cos(i * Math.PI / 5)];
  })),
  heart: (pen) => {
    pen.moveTo(0, 0.9);
    pen.bezierCurveTo(-1.5, -0.1, -0.85, -1.25, 0, -0.45);
    pen.bezierCurveTo(0.85, -1.25, 1.5, -0.1, 0, 0.9);
  },
  cross: (pen) => polygon(pen, [
    [-0.3, -0.9], [0.3, -0.9], [0.3, -0.3], [0.9, -0.3], [0.9, 0.3], [0.3, 0.3],
    [0.3, 0.9], [-0.3, 0.9], [-0.3, 0.3], [-0.9, 0.3], [-0.9, -0.3], [-0.3, -0.3],
  ]),
  arrow: (pen) => polygon(pen, [[0.95, 0], [0.25, 0.65], [0.25, 0.25], [-0.9, 0.25], [-0.9, -0.25], [0.25, -0.25], [0.25, -0.65]]),
  crescent: (pen) => {
    // The moon's outer edge, then back along a shifted one that meets it at both horns.
    pen.arc(0, 0, 0.95, 0.3 * Math.PI, 1.7 * Math.PI);
    const horn = [0.95 * Math.cos(0.3 * Math.PI), 0.95 * Math.sin(0.3 * Math.PI)];
    const centre = 0.55;
    const radius = Math.hypot(horn[0] - centre, horn[1]);
    const half = Math.atan2(horn[1], horn[0] - centre);
    pen.arc(centre, 0, radius, -half, half, true);
  },
};

function polygon(pen, points) {
  points.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
}
