"use strict";
// One fetch brings everything: messages of [JSON length, JPEG length] (two big-endian uint32), JSON, JPEG. The first
// describes the model, the last may say why there are no more. Poses and picture of a message belong together.
const $ = (id) => document.getElementById(id);
const picture = $("picture"), pen = picture.getContext("2d");
const COLORS = ["#56b4e9", "#009e73", "#e69f00", "#cc79a7", "#f0e442", "#d55e00"];
const KEYS = { k: "skeleton", e: "sigma", c: "scores", i: "ids", p: "pixels" };
const GRAPH_POINTS = 240, LIMB_WIDTH = 0.011, MAX_LIMB_WIDTH = 0.008, SIGMA_ALPHA = 0.4;
const OUTLINE = "rgb(24,26,30)";
const BOX = "rgb(0,158,115)";
let about = null, waiting = null, shown = null, decoding = false, paused = false, connection = null, ended = false;
const points = [];
const view = { yaw: 35, pitch: 25 };  // degrees: 0, 0 is the camera's own view, 90 of pitch a plan

function say(state, text) { $("status").dataset.state = state; $("status").textContent = text; }

async function connect() {
  connection = new AbortController();
  try {
    const answer = await fetch("stream", { signal: connection.signal, cache: "no-store" });
    if (answer.status === 401) { say("lost", "open the address with the token again"); return; }
    if (!answer.ok) throw new Error(`the server said ${answer.status}`);
    await read(answer.body.getReader());
  } catch (error) {
    if (connection === null || connection.signal.aborted) return;
  }
  if (!ended) { say("lost", "no connection, trying again"); setTimeout(connect, 1500); }
}

async function read(reader) {
  let buffer = new Uint8Array(0);
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const joined = new Uint8Array(buffer.length + value.length);
    joined.set(buffer); joined.set(value, buffer.length);
    buffer = joined;
    while (buffer.length >= 8) {
      const lengths = new DataView(buffer.buffer, buffer.byteOffset), json = lengths.getUint32(0);
      const end = 8 + json + lengths.getUint32(4);
      if (buffer.length < end) break;
      take(JSON.parse(new TextDecoder().decode(buffer.subarray(8, 8 + json))), buffer.slice(8 + json, end));
      buffer = buffer.slice(end);
    }
  }
}

function take(message, jpeg) {
  if (message.about) return introduce(message.about);
  if (message.ended) { ended = true; return say("lost", message.ended); }
  if (paused) return;
  say("live", "live");
  waiting = { message, jpeg };  // an older one that was not drawn yet is passed over
  if (!decoding) decode();
}

async function decode() {
  decoding = true;
  while (waiting && !paused) {
    const { message, jpeg } = waiting;
    waiting = null;
    const image = await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }));
    if (paused) { image.close(); break; }
    if (shown) shown.image.close();
    shown = { message, image };
    note(message);
    requestAnimationFrame(draw);
  }
  decoding = false;
}

function introduce(description) {
  const first = about === null;
  about = description;
  $("source").textContent = about.source;
  $("model").textContent = `${about.model}, ${about.precision} on ${about.engine}`;
  document.title = `${about.source}, mdpose-edge`;
  const slider = $("threshold");
  slider.min = about.threshold;
  slider.value = Math.max(about.start, about.threshold);
  $("ids").closest("label").hidden = !about.tracked;
  if (first) $("ids").checked = about.tracked;  // whoever asks for identities wants to see them
  $("threshold-value").textContent = Number(slider.value).toFixed(2);
  $("legend").replaceChildren(...about.stages.map((name, i) => {
    const row = document.createElement("li"), key = document.createElement("canvas");
    key.width = key.height = 11;
    const ink = key.getContext("2d"); ink.fillStyle = COLORS[i % COLORS.length]; ink.fillRect(0, 0, 11, 11);
    const value = document.createElement("output"); value.id = `stage-${i}`;
    row.append(key, name, value);
    return row;
  }));
}

function note(message) {
  points.push({ fps: message.fps, stages: message.stages_ms });
  if (points.length > GRAPH_POINTS) points.shift();
  const lost = message.dropped ? `, ${message.dropped} dropped by the source` : "";
  $("frame").textContent = `frame ${message.index}, ${message.width}×${message.height} px${lost}`;
  $("fps").textContent = message.fps.toFixed(1);
  $("latency").textContent = message.latency_ms.toFixed(0);
  message.stages_ms.forEach((ms, i) => { $(`stage-${i}`).textContent = ms.toFixed(1); });
}

function people() {
  const least = Number($("threshold").value);
  return shown.message.poses.filter((pose) => pose.score >= least);
}

function draw() {
  if (!shown || !about) return;
  const { width, height } = shown.message;
  if (picture.width !== width || picture.height !== height) { picture.width = width; picture.height = height; }
  if ($("pixels").checked) pen.drawImage(shown.image, 0, 0, width, height);
  else { pen.fillStyle = "#000"; pen.fillRect(0, 0, width, height); }
  const found = people();
  $("people").textContent = found.length;
  if ($("sigma").checked) found.forEach(drawSigma);
  const worstFirst = [...found].reverse();  // so that the best ends on top
  if ($("skeleton").checked) worstFirst.forEach(drawSkeleton);
  if ($("scores").checked || $("ids").checked) worstFirst.forEach(drawLabel);
  drawScene(found);
  drawGraphs();
}

const point = (pose, i) => [pose.keypoints_xy[2 * i], pose.keypoints_xy[2 * i + 1]];
const count = () => about.dots.length;
const kind = (pose) => (about.classes && pose.class !== null && about.classes[pose.class]) || ["", BOX];  // name, colour

function box(pose) {
  if (pose.box_xyxy) return pose.box_xyxy;
  const xs = pose.keypoints_xy.filter((_, i) => i % 2 === 0), ys = pose.keypoints_xy.filter((_, i) => i % 2);
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
}

function drawSkeleton(pose) {
  const [x0, y0, x1, y1] = box(pose);
  const line = Math.max(1.2, Math.min(LIMB_WIDTH * Math.hypot(x1 - x0, y1 - y0),
    MAX_LIMB_WIDTH * Math.hypot(picture.width, picture.height)));
  pen.lineCap = "round";
  for (const outline of [true, false]) {
    if (pose.box_xyxy) {
      pen.strokeStyle = outline ? OUTLINE : kind(pose)[1]; pen.lineWidth = outline ? 1.8 * line : line;
      pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
    }
    about.limbs.forEach(([start, end, color]) => {
      pen.beginPath(); pen.moveTo(...point(pose, start)); pen.lineTo(...point(pose, end));
      pen.strokeStyle = outline ? OUTLINE : color; pen.lineWidth = outline ? 1.8 * line : line; pen.stroke();
    });
  }
  for (let i = 0; i < count(); i++) {
    for (const outline of [true, false]) {
      pen.beginPath(); pen.arc(...point(pose, i), 0.85 * line + (outline ? 1 : 0), 0, 2 * Math.PI);
      pen.fillStyle = outline ? OUTLINE : about.dots[i]; pen.fill();
    }
  }
}

function drawSigma(pose) {
  pen.lineWidth = Math.max(1, Math.hypot(picture.width, picture.height) / 900);
  for (let i = 0; i < count(); i++) {
    pen.beginPath();
    pen.ellipse(...point(pose, i), pose.sigma_xy[2 * i], pose.sigma_xy[2 * i + 1], 0, 0, 2 * Math.PI);
    pen.fillStyle = pen.strokeStyle = about.dots[i];
    pen.globalAlpha = SIGMA_ALPHA; pen.fill();
    pen.globalAlpha = 1; pen.stroke();  // a small ellipse lies almost wholly under its dot
  }
}

function drawLabel(pose) {
  const parts = [];
  if ($("ids").checked && pose.id !== null) parts.push(`#${pose.id}`);
  if ($("scores").checked) parts.push(kind(pose)[0], pose.score.toFixed(2));
  if (!parts.length) return;
  const size = Math.max(11, Math.hypot(picture.width, picture.height) / 85), [x0, y0, x1] = box(pose);
  pen.font = `600 ${size}px system-ui, sans-serif`;
  const text = parts.filter(Boolean).join(" "), width = pen.measureText(text).width + 0.7 * size;
  const x = Math.max(0, Math.min(picture.width - width, (x0 + x1 - width) / 2)), y = Math.max(0, y0 - 2.2 * size);
  pen.fillStyle = OUTLINE; pen.fillRect(x, y, width, 1.4 * size);
  pen.fillStyle = "#eee"; pen.fillText(text, x + 0.35 * size, y + 1.05 * size);
}

function graph(id) {
  const canvas = $(id), scale = window.devicePixelRatio || 1, { clientWidth, clientHeight } = canvas;
  canvas.width = clientWidth * scale; canvas.height = clientHeight * scale;
  const ink = canvas.getContext("2d");
  ink.scale(scale, scale); ink.font = "10px system-ui, sans-serif"; ink.fillStyle = "#94a1aa";
  return { ink, width: clientWidth, height: clientHeight };
}

// The top of a graph: 1, 2 or 5 times a power of ten. Rare spikes may reach beyond it.
function topOf(values) {
  const usual = [...values].sort((a, b) => a - b)[Math.floor(0.97 * (values.length - 1))] || 0;
  const most = Math.max(1e-3, 1.15 * usual), unit = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].map((n) => n * unit).find((n) => n >= most);
}

// People in metres, over a floor with lines a metre apart, from where the mouse has turned them.
function drawScene(found) {
  const solid = found.filter((pose) => pose.keypoints_3d);
  if (solid.length) $("scene-section").hidden = false;
  if ($("scene-section").hidden) return;
  const { ink, width, height } = graph("scene");
  $("scene").dataset.yaw = view.yaw.toFixed(0); $("scene").dataset.pitch = view.pitch.toFixed(0);
  if (!solid.length) return;
  $("scale").textContent = solid[0].metric ? "" : "(camera guessed: not to scale)";
  const joints = solid.map((pose) => Array.from({ length: count() }, (_, i) => pose.keypoints_3d.slice(3 * i, 3 * i + 3)));
  const all = joints.flat(), low = [0, 1, 2].map((d) => Math.min(...all.map((p) => p[d])));
  const high = [0, 1, 2].map((d) => Math.max(...all.map((p) => p[d]))), middle = low.map((v, d) => (v + high[d]) / 2);
  const yaw = view.yaw * Math.PI / 180, pitch = view.pitch * Math.PI / 180;
  const turn = (p) => {
    const [x, y, z] = p.map((v, d) => v - middle[d]), away = z * Math.cos(yaw) - x * Math.sin(yaw);
    return [x * Math.cos(yaw) + z * Math.sin(yaw), y * Math.cos(pitch) - away * Math.sin(pitch),
      y * Math.sin(pitch) + away * Math.cos(pitch)];
  };
  const seen = all.map(turn), extent = (d) => Math.max(2, 2 * Math.max(...seen.map((p) => Math.abs(p[d]))));
  const scale = 0.8 * Math.min(width / extent(0), height / extent(1));
  const at = (p) => [width / 2 + scale * p[0], height / 2 + scale * p[1]];
  const line = (a, b, color, thick) => {
    ink.beginPath(); ink.moveTo(...at(turn(a))); ink.lineTo(...at(turn(b)));
    ink.strokeStyle = color; ink.lineWidth = thick; ink.stroke();
  };
  const step = Math.max(1, Math.ceil(Math.max(...high.map((v, d) => v - low[d])) / 40)), floor = high[1];
  const [x0, z0] = [low[0], low[2]].map((v) => step * Math.floor(v / step));
  const [x1, z1] = [high[0], high[2]].map((v) => step * Math.ceil(v / step));
  for (let x = x0; x <= x1; x += step) line([x, floor, z0], [x, floor, z1], "#3c4046", 1);
  for (let z = z0; z <= z1; z += step) line([x0, floor, z], [x1, floor, z], "#3c4046", 1);
  const depth = (person) => person.reduce((sum, p) => sum + turn(p)[2], 0);
  ink.lineCap = "round";
  [...joints].sort((a, b) => depth(b) - depth(a)).forEach((person) => {
    about.limbs.forEach(([start, end, color]) => line(person[start], person[end], color, Math.max(1.5, 0.03 * scale)));
  });
}

function turnScene(yaw, pitch) {
  view.yaw = (view.yaw + yaw) % 360;
  view.pitch = Math.max(-90, Math.min(90, view.pitch + pitch));
  draw();
}

function drawGraphs() {
  drawStacked(graph("fps-graph"), points.map((one) => [one.fps]), ["#4cc3a5"]);
  drawStacked(graph("stage-graph"), points.map((one) => one.stages), COLORS);
}

function drawStacked({ ink, width, height }, rows, colors) {
  const sums = rows.map((row) => row.reduce((a, b) => a + b, 0)), most = topOf(sums);
  const x = (i) => width - (rows.length - 1 - i) * width / (GRAPH_POINTS - 1), y = (v) => height - Math.min(1, v / most) * (height - 4);
  const base = rows.map(() => 0);
  for (let stage = 0; stage < (rows[0] || []).length; stage++) {
    ink.beginPath();
    rows.forEach((_, i) => ink.lineTo(x(i), y(base[i])));
    rows.forEach((row, i) => { base[i] += row[stage]; });
    for (let i = rows.length - 1; i >= 0; i--) ink.lineTo(x(i), y(base[i]));
    ink.fillStyle = colors[stage % colors.length]; ink.globalAlpha = 0.8; ink.fill(); ink.globalAlpha = 1;
  }
  ink.strokeStyle = "#2c343a"; ink.strokeRect(0.5, 0.5, width - 1, height - 1);
  ink.fillStyle = "#e4e8eb"; ink.fillText(`${most}`, 4, 11);
}

function snapshot() {
  if (!shown) return;
  picture.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `mdpose-${String(shown.message.index).padStart(6, "0")}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }, "image/png");
}

function pause() {
  paused = !paused;
  $("pause").firstChild.textContent = paused ? "Go on " : "Pause ";
  if (paused) say("wait", "paused");
}

document.querySelectorAll("input[type=checkbox]").forEach((input) => input.addEventListener("change", draw));
$("threshold").addEventListener("input", () => {
  $("threshold-value").textContent = Number($("threshold").value).toFixed(2); draw();
});
$("snapshot").addEventListener("click", snapshot);
$("pause").addEventListener("click", pause);
$("scene").addEventListener("pointerdown", (event) => $("scene").setPointerCapture(event.pointerId));
$("scene").addEventListener("pointermove", (event) => {
  if (event.buttons & 1) turnScene(0.5 * event.movementX, 0.5 * event.movementY);
});
$("scene").addEventListener("keydown", (event) => {
  const turns = { ArrowLeft: [-5, 0], ArrowRight: [5, 0], ArrowUp: [0, 5], ArrowDown: [0, -5] }[event.key];
  if (turns) { event.preventDefault(); turnScene(...turns); }
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.toLowerCase();
  if (KEYS[key]) $(KEYS[key]).click();
  else if (key === "s") snapshot();
  else if (key === " " && event.target.tagName !== "BUTTON") { event.preventDefault(); pause(); }
});
// A page that nobody looks at costs the board nothing.
document.addEventListener("visibilitychange", () => {
  if (ended) return;
  if (document.hidden) { connection?.abort(); connection = null; say("wait", "not watching"); } else if (!connection) connect();
});
connect();
