"use strict";
// One run of the simulator: reads the events embedded in the page and draws the part of them that is in view.
(function () {
  const KINDS = {
    PREPARE: 265, PROMISE: 295, OPEN: 200, ACCEPT: 215, ACCEPT_REF: 215, ACCEPTED: 140, DECIDE: 105, NACK: 5,
    FORWARD: 35, FETCH: 180, FETCHED: 170, FETCH_CHOSEN: 190, CHOSEN: 85, CHOSEN_GONE: 60, TRANSFER: 325,
    READ_INDEX: 50, READ_MARK: 50, HELLO: null, PING: null, PONG: null,
  };
  const HEARTBEATS = new Set(["PING", "PONG", "HELLO"]);
  const RECORDS = { 1: "promise", 2: "accept", 3: "chosen", 4: "mark", 5: "incarnation", 6: "trim" };
  const SIGNS = { start: "\u25b2", crash: "\u2716", propose: "\u25cf", violation: "!" };
  const events = JSON.parse(document.getElementById("trace").textContent);
  const $ = (id) => document.getElementById(id);
  const canvas = $("diagram"), overview = $("overview"), tip = $("tip"), panel = $("panel");
  const pen = canvas.getContext("2d"), small = overview.getContext("2d");
  const LEFT = 66, TOP = 74, LOG_Y = 52, BOTTOM = 26;
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const isDark = () => css("--dark") === "1";

  // ---- from events to things that can be drawn --------------------------------------------------------------
  const nodes = [], messages = [], marks = [], spans = [], cuts = [], counts = {};
  const sent = new Map();
  let violation = null, first = Infinity, last = 0;

  function ballotText(ballot) {
    if (!ballot) return "none";
    if (ballot > 2 ** 62) return "chosen";
    return Math.floor(ballot / 65536) + "." + (ballot % 65536);
  }

  function read() {
    const open = {};                    // (what, node) -> the span that has begun
    const begin = (what, node, us, event, more) => {
      end(what, node, us);
      open[what + node] = Object.assign({ what, node, from: us, to: Infinity, event }, more);
      spans.push(open[what + node]);
    };
    const end = (what, node, us) => {
      const span = open[what + node];
      if (span) { span.to = Math.min(span.to, us); delete open[what + node]; }
    };
    for (const event of events) {
      first = Math.min(first, event.us);
      last = Math.max(last, event.us);
      if (event.node && !nodes.includes(event.node)) nodes.push(event.node);
      switch (event.event) {
        case "send": {
          const message = { id: event.id, kind: event.kind, from: event.node, to: event.to, sent: event.us, got: null,
            lost: null, event, ends: [] };
          messages.push(message);
          sent.set(event.id, message);
          counts[event.kind] = (counts[event.kind] || 0) + 1;
          break;
        }
        case "receive": {
          const message = sent.get(event.id);
          if (!message) break;
          message.ends.push(event);
          if (message.got === null) message.got = event.us;
          else messages.push(Object.assign({}, message, { got: event.us, again: true, lost: null }));
          break;
        }
        case "drop": {
          const message = sent.get(event.id);
          if (!message) break;
          message.ends.push(event);
          if (message.got === null) message.lost = { us: event.us, why: event.why };
          break;
        }
        case "start": end("down", event.node, event.us); marks.push(event); break;
        case "crash":
          for (const what of ["leads", "paused", "hangs", "stalled"]) end(what, event.node, event.us);
          begin("down", event.node, event.us, event);
          marks.push(event);
          break;
        case "lead": begin("leads", event.node, event.us, event, { ballot: event.ballot }); break;
        case "unlead": end("leads", event.node, event.us); break;
        case "pause": case "hang": case "stall": {
          const what = { pause: "paused", hang: "hangs", stall: "stalled" }[event.event];
          begin(what, event.node, event.us, event);
          open[what + event.node].to = event.us + event.length_us;
          break;
        }
        case "links": {
          if (cuts.length) cuts[cuts.length - 1].to = event.us;
          cuts.push({ from: event.us, to: Infinity, event });
          break;
        }
        case "violation": violation = event; marks.push(event); break;
        default: marks.push(event);
      }
    }
    for (const span of spans) span.to = Math.min(span.to, last);
    for (const cut of cuts) cut.to = Math.min(cut.to, last);
    nodes.sort((a, b) => a - b);
  }

  // ---- the view ---------------------------------------------------------------------------------------------
  const view = { from: 0, to: 1, hidden: new Set(HEARTBEATS), wanted: "", test: null, selected: null };
  let width = 800, height = 400, drawn = 0;

  function laneOf(node) {
    const gap = (height - TOP - BOTTOM) / Math.max(1, nodes.length);
    return TOP + gap * (nodes.indexOf(node) + 0.5);
  }
  const x = (us) => LEFT + ((us - view.from) / (view.to - view.from)) * (width - LEFT - 12);
  const timeAt = (px) => view.from + ((px - LEFT) / (width - LEFT - 12)) * (view.to - view.from);
  const inView = (from, to) => to >= view.from && from <= view.to;

  function show(from, to) {
    const whole = Math.max(1000, last - first);
    const length = Math.min(Math.max(to - from, 200), whole * 1.1);
    const middle = (from + to) / 2;
    view.from = Math.min(Math.max(middle - length / 2, first - whole * 0.05), last + whole * 0.05 - length);
    view.to = view.from + length;
    redraw();
  }
  function zoom(factor, around) {
    const at = around === undefined ? (view.from + view.to) / 2 : around;
    show(at - (at - view.from) * factor, at + (view.to - at) * factor);
  }
  const pan = (part) => show(view.from + (view.to - view.from) * part, view.to + (view.to - view.from) * part);
  const fit = () => show(first - (last - first) * 0.02, last + (last - first) * 0.02);

  function colour(kind, alpha) {
    const hue = KINDS[kind];
    const light = isDark() ? 68 : 40;
    return hue === null || hue === undefined ? `hsla(210, 8%, ${light + 12}%, ${alpha})` : `hsla(${hue}, 72%, ${light}%, ${alpha})`;
  }
  const ballotColour = (ballot, alpha) =>
    `hsla(${(Math.floor(ballot / 65536) * 67 + (ballot % 65536) * 131) % 360}, 62%, ${isDark() ? 46 : 44}%, ${alpha})`;

  // ---- what is searched for ---------------------------------------------------------------------------------
  function search(text) {
    view.wanted = text.trim().toLowerCase();
    view.test = null;
    const words = view.wanted.match(/^(slot|ballot|node|kind)?\s*:?\s*(.+)$/);
    if (words) {
      let what = words[1];
      const value = words[2];
      if (!what) what = /^\d+$/.test(value) ? "slot" : /^\d+\.\d+$/.test(value) ? "ballot" : "kind";
      const number = Number(value);
      if (what === "slot") view.test = (event) => event.slot === number || (event.entries || []).some((one) => one[0] === number);
      if (what === "ballot") view.test = (event) => ["ballot", "promised", "leader", "stream_ballot"].some((key) => event[key] && ballotText(event[key]) === value);
      if (what === "node") view.test = (event) => event.node === number || event.to === number;
      if (what === "kind") view.test = (event) => String(event.kind || event.event).toLowerCase().startsWith(value) || event.event.startsWith(value);
    }
    redraw();
    return view.test ? events.filter(view.test).length : 0;
  }
  const strength = (event, usual) => (view.test ? (view.test(event) ? 1 : 0.07) : usual);

  // ---- drawing ----------------------------------------------------------------------------------------------
  function fitText(text, room) {
    if (pen.measureText(text).width <= room) return text;
    while (text.length > 1 && pen.measureText(text + "\u2026").width > room) text = text.slice(0, -1);
    return text.length > 2 ? text + "\u2026" : "";
  }

  function drawRuler() {
    const length = view.to - view.from;
    const raw = (length / (width - LEFT)) * 92;
    const power = Math.pow(10, Math.floor(Math.log10(raw)));
    const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= raw);
    pen.fillStyle = css("--quiet");
    pen.strokeStyle = css("--line");
    pen.lineWidth = 1;
    pen.font = "11.5px system-ui, 'DejaVu Sans', sans-serif";
    pen.textAlign = "center";
    for (let us = Math.ceil(view.from / step) * step; us <= view.to; us += step) {
      const at = Math.round(x(us)) + 0.5;
      if (at < LEFT) continue;
      pen.globalAlpha = 0.45;
      pen.beginPath(); pen.moveTo(at, 22); pen.lineTo(at, height - BOTTOM + 6); pen.stroke();
      pen.globalAlpha = 1;
      const ms = (us / 1000).toFixed(step >= 1000 ? 0 : step >= 100 ? 1 : 2);
      if (at > LEFT + 20 && at < width - 24) pen.fillText(ms + " ms", at, 14);
    }
  }

  function linksText(event) {
    const parts = [];
    const list = (links) => links.map((link) => link[0] + "\u2192" + link[1]).join(" ");
    if (event.cut.length) parts.push("cut " + list(event.cut));
    if (event.held.length) parts.push("held back " + list(event.held));
    if (event.slow.length) parts.push("slow " + list(event.slow));
    if (event.selective.length) parts.push("selective " + list(event.selective));
    return parts.join(" \u00b7 ");
  }

  function drawCuts() {
    pen.textAlign = "left";
    pen.font = "11.5px system-ui, 'DejaVu Sans', sans-serif";
    for (const cut of cuts) {
      const text = linksText(cut.event);
      if (!text || !inView(cut.from, cut.to)) continue;
      const left = Math.max(LEFT, x(cut.from)), right = Math.min(width, x(cut.to));
      pen.fillStyle = cut.event.cut.length ? (isDark() ? "rgba(255,120,100,0.13)" : "rgba(210,50,30,0.09)") : isDark() ? "rgba(240,200,90,0.10)" : "rgba(200,150,0,0.09)";
      pen.fillRect(left, 22, right - left, height - BOTTOM - 18);
      pen.fillStyle = css("--bad");
      pen.fillText(fitText(text, right - left - 8), left + 4, 32);
    }
  }

  function drawLanes() {
    const bold = "600 13px system-ui, 'DejaVu Sans', sans-serif";
    for (const node of nodes) {
      const y = laneOf(node);
      pen.strokeStyle = css("--quiet");
      pen.lineWidth = 1;
      pen.beginPath(); pen.moveTo(LEFT, y + 0.5); pen.lineTo(width, y + 0.5); pen.stroke();
      pen.fillStyle = css("--ink");
      pen.font = bold;
      pen.textAlign = "right";
      pen.fillText("node " + node, LEFT - 10, y + 4);
    }
    pen.fillStyle = css("--quiet");
    pen.textAlign = "right";
    pen.font = bold;
    pen.fillText("chosen", LEFT - 10, LOG_Y + 4);
  }

  function drawSpans() {
    pen.font = "11.5px system-ui, 'DejaVu Sans', sans-serif";
    pen.textAlign = "left";
    for (const span of spans) {
      if (!inView(span.from, span.to)) continue;
      const y = laneOf(span.node), left = Math.max(LEFT, x(span.from)), right = Math.min(width, x(span.to));
      if (right < LEFT) continue;
      pen.globalAlpha = view.test && !view.test(span.event) ? 0.25 : 1;
      if (span.what === "down") {
        pen.fillStyle = css("--paper");
        pen.fillRect(left, y - 2, right - left, 5);
        pen.strokeStyle = css("--bad");
        pen.setLineDash([2, 5]);
        pen.beginPath(); pen.moveTo(left, y + 0.5); pen.lineTo(right, y + 0.5); pen.stroke();
        pen.setLineDash([]);
      } else if (span.what === "leads") {
        pen.fillStyle = ballotColour(span.ballot, 0.85);
        pen.fillRect(left, y - 5, Math.max(2, right - left), 11);
      } else {
        const tints = { paused: "rgba(230,150,0,0.40)", hangs: "rgba(150,80,220,0.38)", stalled: "rgba(120,130,140,0.40)" };
        const words = { paused: "paused", hangs: "disk hangs", stalled: "control stalls" };
        const offset = { paused: 0, hangs: 9, stalled: -9 }[span.what];
        pen.fillStyle = tints[span.what];
        pen.fillRect(left, y - 9 + offset / 3, Math.max(2, right - left), 19);
        pen.fillStyle = css("--ink");
        pen.fillText(fitText(words[span.what], right - left - 6), left + 3, y + 22 + offset / 3);
      }
      pen.globalAlpha = 1;
    }
  }

  // Last of all, so that nothing covers them: who leads, at which ballot.
  function labelLeaders() {
    pen.font = "600 11px system-ui, 'DejaVu Sans', sans-serif";
    pen.textAlign = "left";
    for (const span of spans) {
      if (span.what !== "leads" || !inView(span.from, span.to)) continue;
      const left = Math.max(LEFT, x(span.from)), right = Math.min(width, x(span.to)), y = laneOf(span.node);
      const text = "leads " + ballotText(span.ballot), size = pen.measureText(text).width;
      if (right - left < 26 && right < width) continue;
      pen.fillStyle = ballotColour(span.ballot, 1);
      pen.fillRect(left, y - 7, size + 10, 15);
      pen.fillStyle = "#fff";
      pen.fillText(text, left + 5, y + 4.5);
    }
  }

  function endOf(message) {
    if (message.got !== null) return { us: message.got, part: 1 };
    const flight = (view.to - view.from) * 0.012;
    return { us: message.lost ? Math.max(message.lost.us, message.sent + flight) : message.sent + flight, part: message.lost ? 0.55 : 0.8 };
  }
  function segment(message) {
    const end = endOf(message), y0 = laneOf(message.from), y1 = laneOf(message.to);
    return { x0: x(message.sent), y0, x1: x(end.us), y1: y0 + (y1 - y0) * end.part };
  }
  const isShown = (message) => !view.hidden.has(message.kind);

  function drawMessages() {
    const visible = messages.filter((m) => isShown(m) && inView(m.sent, endOf(m).us));
    const crowded = visible.length > 2500;
    drawn = visible.length;
    for (const message of visible) {
      const s = segment(message);
      const isSelected = view.selected && view.selected.id !== undefined && view.selected.id === message.id;
      pen.strokeStyle = pen.fillStyle = colour(message.kind, isSelected ? 1 : strength(message.event, crowded ? 0.25 : 0.8));
      pen.lineWidth = isSelected ? 3 : view.test && view.test(message.event) ? 2 : 1.1;
      if (message.again) pen.setLineDash([4, 3]);
      pen.beginPath(); pen.moveTo(s.x0, s.y0); pen.lineTo(s.x1, s.y1); pen.stroke();
      pen.setLineDash([]);
      const lost = message.got === null;
      if (crowded && !isSelected) continue;
      if (lost) {
        pen.lineWidth = 1.6;
        pen.beginPath();
        pen.moveTo(s.x1 - 4, s.y1 - 4); pen.lineTo(s.x1 + 4, s.y1 + 4);
        pen.moveTo(s.x1 + 4, s.y1 - 4); pen.lineTo(s.x1 - 4, s.y1 + 4);
        pen.stroke();
      } else {
        const angle = Math.atan2(s.y1 - s.y0, s.x1 - s.x0);
        pen.beginPath();
        pen.moveTo(s.x1, s.y1);
        pen.lineTo(s.x1 - 8 * Math.cos(angle - 0.32), s.y1 - 8 * Math.sin(angle - 0.32));
        pen.lineTo(s.x1 - 8 * Math.cos(angle + 0.32), s.y1 - 8 * Math.sin(angle + 0.32));
        pen.fill();
      }
    }
    if (visible.length <= 90) labelMessages(visible);
  }

  // Names beside the arrows, each where no other has been put.
  function labelMessages(visible) {
    const taken = [];
    pen.font = "11px system-ui, 'DejaVu Sans', sans-serif";
    pen.textAlign = "left";
    for (const message of visible) {
      if (strength(message.event, 1) < 1) continue;
      const s = segment(message);
      const text = message.kind.toLowerCase().replace("_", " ") + (message.event.slot ? " " + message.event.slot : "");
      const size = pen.measureText(text).width + 6;
      for (const part of [0.3, 0.45, 0.6, 0.2, 0.75]) {
        const at = { x: s.x0 + (s.x1 - s.x0) * part + 5, y: s.y0 + (s.y1 - s.y0) * part };
        if (at.x < LEFT || at.x + size > width || Math.abs(at.y - LOG_Y) < 12) continue;
        if (nodes.some((node) => Math.abs(laneOf(node) - at.y) < 15)) continue;
        if (taken.some((other) => Math.abs(other.y - at.y) < 14 && at.x < other.x + other.size && other.x < at.x + size)) continue;
        taken.push({ x: at.x, y: at.y, size });
        pen.globalAlpha = 0.78;
        pen.fillStyle = css("--paper");
        pen.fillRect(at.x - 2, at.y - 10, size, 13);
        pen.globalAlpha = 1;
        pen.fillStyle = colour(message.kind, 1);
        pen.fillText(text, at.x, at.y);
        break;
      }
    }
  }

  const placeOf = (event) => ({ x: x(event.us), y: event.event === "chosen" ? LOG_Y : event.node ? laneOf(event.node) : 42 });

  function drawMarks() {
    const visible = marks.filter((event) => inView(event.us, event.us));
    const crowded = visible.length > 1500;
    let chosenUntil = -1e9;
    const until = {};
    for (const event of visible) {
      const at = placeOf(event);
      if (at.x < LEFT) continue;
      pen.globalAlpha = strength(event, 1);
      pen.lineWidth = 1.2;
      const isSelected = view.selected === event;
      if (event.event === "chosen") {
        pen.fillStyle = ballotColour(event.ballot, 1);
        pen.beginPath(); pen.arc(at.x, at.y - 8, isSelected ? 5 : 3.5, 0, 7); pen.fill();
        pen.font = "11px system-ui, 'DejaVu Sans', sans-serif";
        pen.textAlign = "center";
        const text = String(event.slot), half = pen.measureText(text).width / 2;
        if (at.x - half > chosenUntil) {
          pen.fillStyle = css("--ink");
          pen.fillText(text, at.x, at.y + 8);
          chosenUntil = at.x + half + 5;
        }
      } else if (event.event === "sync" || event.event === "append") {
        pen.strokeStyle = event.event === "sync" ? css("--ink") : css("--quiet");
        const length = event.event === "sync" ? 8 : 4;
        pen.beginPath(); pen.moveTo(at.x, at.y); pen.lineTo(at.x, at.y + length); pen.stroke();
      } else if (event.event === "apply") {
        pen.strokeStyle = "hsl(140, 60%, 40%)";
        pen.beginPath(); pen.moveTo(at.x, at.y - 9); pen.lineTo(at.x, at.y - 3); pen.stroke();
        if (!crowded && at.x > (until[event.node] || 0)) {
          pen.font = "10px system-ui, 'DejaVu Sans', sans-serif";
          pen.textAlign = "center";
          pen.fillStyle = "hsl(140, 55%, " + (isDark() ? 65 : 30) + "%)";
          pen.fillText(event.slot, at.x, at.y - 11);
          until[event.node] = at.x + 18;
        }
      } else if (event.event === "violation") {
        pen.strokeStyle = pen.fillStyle = css("--bad");
        pen.lineWidth = 2.5;
        pen.beginPath(); pen.moveTo(at.x, 20); pen.lineTo(at.x, height - BOTTOM); pen.stroke();
        pen.font = "700 13px system-ui, 'DejaVu Sans', sans-serif";
        const text = fitText("violation of " + String(event.text).split(":")[0], 220);
        const size = pen.measureText(text).width;
        pen.textAlign = "left";
        pen.fillText(text, Math.min(at.x + 6, width - size - 8), height - 8);
      } else if (SIGNS[event.event] || isSelected) {
        pen.fillStyle = event.event === "crash" ? css("--bad") : event.event === "start" ? "hsl(140, 60%, 38%)" : css("--accent");
        pen.font = (event.event === "propose" ? "9" : "15") + "px system-ui, 'DejaVu Sans', sans-serif";
        pen.textAlign = "center";
        pen.fillText(SIGNS[event.event] || "\u25cf", at.x, at.y + (event.event === "propose" ? -6 : 5));
      } else if (event.node) {
        pen.strokeStyle = css("--accent");
        pen.beginPath(); pen.arc(at.x, at.y, 3.5, 0, 7); pen.stroke();
      }
    }
    pen.globalAlpha = 1;
  }

  function drawOverview() {
    const ratio = window.devicePixelRatio || 1, w = overview.clientWidth, h = overview.clientHeight;
    overview.width = w * ratio; overview.height = h * ratio;
    small.setTransform(ratio, 0, 0, ratio, 0, 0);
    const at = (us) => LEFT + ((us - first) / Math.max(1, last - first)) * (w - LEFT - 12);
    const row = (h - 8) / Math.max(1, nodes.length);
    for (const cut of cuts) {
      if (!cut.event.cut.length) continue;
      small.fillStyle = isDark() ? "rgba(255,120,100,0.20)" : "rgba(210,50,30,0.13)";
      small.fillRect(at(cut.from), 0, Math.max(1, at(cut.to) - at(cut.from)), h);
    }
    for (const span of spans) {
      const y = 4 + row * nodes.indexOf(span.node);
      small.fillStyle = { leads: ballotColour(span.ballot || 0, 0.9), down: css("--bad"), paused: "orange", hangs: "mediumpurple", stalled: "gray" }[span.what];
      small.fillRect(at(span.from), y + 1, Math.max(1, at(span.to) - at(span.from)), span.what === "down" ? 2 : row - 3);
    }
    if (violation) { small.fillStyle = css("--bad"); small.fillRect(at(violation.us) - 1, 0, 3, h); }
    small.strokeStyle = css("--accent");
    small.lineWidth = 2;
    small.fillStyle = isDark() ? "rgba(108,178,255,0.14)" : "rgba(11,98,196,0.09)";
    const left = Math.max(LEFT, at(view.from)), right = Math.min(w - 2, at(view.to));
    small.fillRect(left, 1, Math.max(3, right - left), h - 2);
    small.strokeRect(left, 1, Math.max(3, right - left), h - 2);
    small.fillStyle = css("--quiet");
    small.font = "11px system-ui, 'DejaVu Sans', sans-serif";
    small.textAlign = "right";
    small.fillText("whole run", LEFT - 6, h / 2 + 4);
  }

  let waiting = false;
  function redraw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  }
  function draw() {
    const ratio = window.devicePixelRatio || 1;
    width = canvas.clientWidth; height = canvas.clientHeight;
    canvas.width = width * ratio; canvas.height = height * ratio;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    drawCuts();
    drawRuler();
    drawLanes();
    pen.save();
    pen.beginPath(); pen.rect(LEFT, 0, width, height); pen.clip();
    drawSpans();
    drawMessages();
    drawMarks();
    labelLeaders();
    pen.restore();
    drawOverview();
  }

  // ---- what is under the pointer ----------------------------------------------------------------------------
  function near(px, py, s) {
    const dx = s.x1 - s.x0, dy = s.y1 - s.y0, length = dx * dx + dy * dy;
    const t = length ? Math.max(0, Math.min(1, ((px - s.x0) * dx + (py - s.y0) * dy) / length)) : 0;
    return Math.hypot(px - s.x0 - t * dx, py - s.y0 - t * dy);
  }
  function under(px, py) {
    let best = null, distance = 7;
    for (const event of marks) {
      if (!inView(event.us, event.us)) continue;
      const at = placeOf(event), d = event.event === "violation" ? Math.abs(at.x - px) : Math.hypot(at.x - px, (at.y - py) * 0.7);
      if (d < distance) { distance = d; best = event; }
    }
    for (const message of messages) {
      if (!isShown(message) || !inView(message.sent, endOf(message).us)) continue;
      const d = near(px, py, segment(message));
      if (d < distance - 1) { distance = d; best = message; }
    }
    if (best) return best;
    for (const span of spans) if (inView(span.from, span.to) && Math.abs(laneOf(span.node) - py) < 10 && px >= x(span.from) && px <= x(span.to)) return span.event;
    if (py > 22 && py < 40) for (const cut of cuts) if (linksText(cut.event) && px >= x(cut.from) && px <= x(cut.to)) return cut.event;
    return null;
  }
  const isMessage = (thing) => thing && thing.sent !== undefined;
  const ms = (us) => (us / 1000).toFixed(3) + " ms";

  function shortText(thing) {
    if (isMessage(thing)) {
      const event = thing.event;
      let text = thing.kind + " " + thing.from + " \u2192 " + thing.to;
      if (event.ballot) text += ", ballot " + ballotText(event.ballot);
      if (event.slot) text += ", slot " + event.slot;
      if (event.value) text += "\n" + event.value;
      return text + (thing.lost ? "\nlost: " + thing.lost.why : thing.got === null ? "\nnever arrived" : "");
    }
    if (thing.event === "violation") return thing.text;
    if (thing.event === "links") return linksText(thing);
    const parts = [thing.event + (thing.node ? " at node " + thing.node : "")];
    for (const key of Object.keys(thing)) if (!["step", "us", "event", "node"].includes(key)) parts.push(key + " " + show1(key, thing[key]));
    return parts.join(", ");
  }
  function show1(key, value) {
    if (["ballot", "promised", "leader", "stream_ballot"].includes(key)) return ballotText(value);
    if (key === "kind" && typeof value === "number") return RECORDS[value] || String(value);
    if (key === "entries") return value.map((one) => "slot " + one[0] + ": " + ballotText(one[1])).join("\n") || "none";
    return typeof value === "object" ? JSON.stringify(value) : String(value);
  }

  function select(thing) {
    view.selected = thing;
    panel.replaceChildren();
    const add = (tag, text, parent, name) => {
      const element = document.createElement(tag);
      if (text !== undefined) element.textContent = text;
      if (name) element.className = name;
      (parent || panel).append(element);
      return element;
    };
    const table = (rows) => {
      const body = add("table");
      for (const [key, value] of rows) { const row = add("tr", undefined, body); add("td", key, row); add("td", value, row); }
    };
    if (!thing) { add("p", "Click an arrow or a mark to see everything about it.", panel, "quiet"); redraw(); return; }
    const event = isMessage(thing) ? thing.event : thing;
    add("h2", isMessage(thing) ? `${thing.kind}, node ${thing.from} to node ${thing.to}` : event.event + (event.node ? `, node ${event.node}` : ""), panel, event.event === "violation" ? "violation" : "");
    const rows = [["time", ms(event.us)]];
    if (isMessage(thing)) rows.push(["arrived", thing.got !== null ? `${ms(thing.got)}, after ${ms(thing.got - thing.sent)}` : thing.lost ? "lost: " + thing.lost.why : "never within the run"]);
    for (const key of Object.keys(event)) if (!["us", "event", "node"].includes(key)) rows.push([key.replace("_", " "), show1(key, event[key])]);
    table(rows);
    if (isMessage(thing)) for (const one of thing.ends) {
      add("h3", one.event + " " + ms(one.us));
      table(Object.keys(one).filter((key) => !["us", "event", "id"].includes(key)).map((key) => [key, show1(key, one[key])]));
    }
    redraw();
  }
  const timeOf = (thing) => (isMessage(thing) ? thing.sent : thing.us);
  function next(direction) {
    const all = [...messages.filter((m) => isShown(m) && !m.again), ...marks].filter((t) => !view.test || view.test(isMessage(t) ? t.event : t));
    all.sort((a, b) => (isMessage(a) ? a.event.step : a.step) - (isMessage(b) ? b.event.step : b.step));
    if (!all.length) return;
    let index = all.indexOf(view.selected);
    if (index < 0) { index = all.findIndex((t) => timeOf(t) >= view.from); if (direction > 0) index -= 1; }
    const thing = all[Math.max(0, Math.min(all.length - 1, index + direction))];
    select(thing);
    const at = timeOf(thing);
    if (at < view.from || at > view.to) show(at - (view.to - view.from) / 2, at + (view.to - view.from) / 2);
  }

  // ---- controls ---------------------------------------------------------------------------------------------
  function toViolation() {
    if (!violation) return;
    const before = messages.filter((m) => isShown(m) && m.sent <= violation.us);
    const from = before.length ? before[Math.max(0, before.length - 45)].sent : first;
    const length = Math.min(Math.max(violation.us - from, 4000), 90000);
    show(violation.us - length, violation.us + length * 0.3);
    select(violation);
  }
  function toggle(kind, on) {
    if (on) view.hidden.delete(kind); else view.hidden.add(kind);
    redraw();
  }
  function buildLegend() {
    const legend = $("legend");
    for (const kind of Object.keys(KINDS)) {
      if (!counts[kind]) continue;
      const label = document.createElement("label"), box = document.createElement("input"), line = document.createElement("i");
      box.type = "checkbox"; box.checked = !view.hidden.has(kind); box.id = "kind-" + kind;
      box.addEventListener("change", () => toggle(kind, box.checked));
      line.style.background = colour(kind, 1);
      const count = document.createElement("small");
      count.textContent = counts[kind];
      label.append(box, line, kind.toLowerCase().replace("_", " "), count);
      legend.append(label);
    }
    const signs = ["\u25b2 a node starts, \u2716 it loses power; dotted while it is down", "a coloured band: the node leads, at the ballot written on it", "amber: paused; violet: the disk hangs; grey: the control thread stalls", "red ground: links are cut, which ones is written on top", "ticks below a line: records written (short) and synced (long)", "green ticks above a line: slots applied, with their numbers"];
    for (const text of signs) { const item = document.createElement("li"); item.textContent = text; $("signs").append(item); }
  }
  function bind() {
    const spot = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    let held = null, moved = false;
    canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.pow(1.0016, event.deltaY), timeAt(spot(event)[0])); }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => { held = { x: event.clientX, from: view.from, to: view.to }; moved = false; canvas.setPointerCapture(event.pointerId); });
    canvas.addEventListener("pointermove", (event) => {
      const [px, py] = spot(event);
      if (held) {
        const by = ((held.x - event.clientX) / (width - LEFT)) * (held.to - held.from);
        if (Math.abs(held.x - event.clientX) > 3) { moved = true; canvas.classList.add("dragging"); }
        if (moved) show(held.from + by, held.to + by);
        return;
      }
      const thing = under(px, py);
      canvas.classList.toggle("over", thing !== null);
      tip.hidden = thing === null;
      if (thing) {
        tip.textContent = shortText(thing);
        tip.style.left = Math.max(4, Math.min(px + 14, width - tip.offsetWidth - 6)) + "px";
        tip.style.top = Math.max(4, Math.min(py + 16, height - tip.offsetHeight)) + "px";
      }
    });
    canvas.addEventListener("pointerup", (event) => { canvas.classList.remove("dragging"); if (held && !moved) select(under(...spot(event))); held = null; });
    canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
    const jump = (event) => {
      const box = overview.getBoundingClientRect(), at = first + ((event.clientX - box.left - LEFT) / (box.width - LEFT - 12)) * (last - first);
      show(at - (view.to - view.from) / 2, at + (view.to - view.from) / 2);
    };
    overview.addEventListener("pointerdown", (event) => { overview.setPointerCapture(event.pointerId); jump(event); });
    overview.addEventListener("pointermove", (event) => { if (event.buttons) jump(event); });
    $("zoom-in").addEventListener("click", () => zoom(0.5));
    $("zoom-out").addEventListener("click", () => zoom(2));
    $("fit").addEventListener("click", fit);
    $("to-violation").addEventListener("click", toViolation);
    $("show-help").addEventListener("click", () => $("help").showModal());
    $("search").addEventListener("input", (event) => search(event.target.value));
    const keys = {
      ArrowLeft: () => pan(-0.2), ArrowRight: () => pan(0.2), "+": () => zoom(0.6), "=": () => zoom(0.6), "-": () => zoom(1.6), 0: fit,
      v: toViolation, n: () => next(1), p: () => next(-1), "?": () => $("help").showModal(), "/": () => $("search").focus(),
      h: () => { const on = view.hidden.has("PING"); for (const kind of HEARTBEATS) { toggle(kind, on); if ($("kind-" + kind)) $("kind-" + kind).checked = on; } },
    };
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { $("search").value = ""; search(""); select(null); canvas.focus(); return; }
      if (event.target.tagName === "INPUT" && event.target.type === "search") return;
      if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
      event.preventDefault();
      keys[event.key]();
    });
    window.addEventListener("resize", redraw);
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  }

  // With #selfcheck in the address the page tries itself out and says what became of it.
  function selfCheck() {
    const failures = [];
    const check = (what, is) => { if (!is) failures.push(what); };
    draw();
    check("draws", drawn > 0 || !messages.some(isShown));
    const before = view.to - view.from;
    zoom(0.5); draw();
    check("zooms", Math.abs((view.to - view.from) / before - 0.5) < 0.01 || before < 500);
    fit(); draw();
    check("fits", view.from <= first && view.to >= last);
    const shown = drawn;
    for (const kind of HEARTBEATS) toggle(kind, true);
    draw();
    check("shows heartbeats", drawn >= shown);
    for (const kind of HEARTBEATS) toggle(kind, false);
    const message = messages.find((m) => isShown(m) && m.got !== null && m.got - m.sent > 20);
    if (message) {
      show(message.sent - 300, message.got + 300); draw();
      const s = segment(message);
      check("finds what is under the pointer", under((s.x0 + s.x1) / 2, (s.y0 + s.y1) / 2) !== null);
      select(message); draw();
      check("tells the message", panel.textContent.includes(message.kind) && panel.textContent.includes(String(message.event.step)));
      check("finds nodes", search("node " + message.from) > 0);
      search("");
    }
    if (violation) { toViolation(); check("tells the violation", panel.textContent.includes(violation.text)); }
    check("receives what was sent", messages.every((m) => m.got === null || m.got >= m.sent));
    const result = document.createElement("pre");
    result.id = "selfcheck";
    result.textContent = failures.length ? "selfcheck: failed: " + failures.join(", ") : `selfcheck: ok, ${events.length} events, ${messages.length} messages`;
    document.body.append(result);
  }

  read();
  buildLegend();
  bind();
  const faults = { crash: 0, pause: 0, hang: 0 };
  for (const event of events) if (event.event in faults) faults[event.event] += 1;
  const lost = messages.filter((m) => m.got === null).length;
  $("summary").textContent = `${nodes.length} nodes, ${((last - first) / 1000).toFixed(0)} ms, ${messages.length} messages (${lost} lost), ` +
    [[new Set(spans.filter((s) => s.what === "leads").map((s) => s.ballot)).size, "ballot that led", "ballots that led"],
      [faults.crash, "crash", "crashes"], [faults.pause, "pause", "pauses"], [marks.filter((m) => m.event === "chosen").length, "slot chosen", "slots chosen"]]
      .map(([count, one, many]) => `${count} ${count === 1 ? one : many}`).join(", ") + ". ";
  if (violation) {
    $("violation").textContent = $("violation").title = violation.text;
    $("violation").hidden = false;
    $("to-violation").hidden = false;
  }
  view.from = first; view.to = Math.max(last, first + 1000);
  if (violation) toViolation();
  else if (messages.filter(isShown).length > 800) show(first - 2000, first + Math.min(last - first, 240000));
  else fit();
  if (location.hash === "#selfcheck") selfCheck();
})();
