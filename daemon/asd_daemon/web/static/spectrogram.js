// Spectrograms: a colour for a level, and the picture of ten seconds of sound on the mel scale.
"use strict";

asd.colours = (() => {
  // black, violet, red, orange, pale yellow: lightness rises evenly, so it can be read without colours
  const stops = [[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39], [252, 255, 164]];
  const table = new Uint8ClampedArray(256 * 3);
  for (let i = 0; i < 256; i++) {
    const place = (i / 255) * (stops.length - 1), low = Math.min(Math.floor(place), stops.length - 2), part = place - low;
    for (let c = 0; c < 3; c++) table[3 * i + c] = stops[low][c] * (1 - part) + stops[low + 1][c] * part;
  }
  return table;
})();

asd.mel = (hz) => 1127 * Math.log1p(hz / 700);
asd.hz = (mel) => 700 * Math.expm1(mel / 1127);
asd.lowest = 40;
asd.highest = 8000;

// Power spectrum of `size` samples, a power of two; in place, decimation in time
asd.fft = function (real, imaginary) {
  const n = real.length;
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) [real[i], real[j]] = [real[j], real[i]];
  }
  for (let size = 2; size <= n; size <<= 1) {
    const half = size >> 1, step = (-2 * Math.PI) / size;
    for (let k = 0; k < half; k++) {
      const c = Math.cos(step * k), s = Math.sin(step * k);
      for (let i = k; i < n; i += size) {
        const j = i + half;
        const r = real[j] * c - imaginary[j] * s, m = real[j] * s + imaginary[j] * c;
        real[j] = real[i] - r; imaginary[j] = imaginary[i] - m;
        real[i] += r; imaginary[i] += m;
      }
    }
  }
};

// Levels in dB, `columns` × `rows`, of samples at 16 kHz; the lowest band is row 0
asd.levels = function (samples, columns, rows) {
  const size = 1024, levels = new Float32Array(columns * rows);
  const window = Float64Array.from({ length: size }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / (size - 1)));
  const low = asd.mel(asd.lowest), high = asd.mel(asd.highest);
  const edges = Array.from({ length: rows + 1 }, (_, r) => (asd.hz(low + ((high - low) * r) / rows) * size) / 16000);
  for (let c = 0; c < columns; c++) {
    const start = Math.round(((samples.length - size) * c) / Math.max(1, columns - 1));
    const real = new Float64Array(size), imaginary = new Float64Array(size);
    for (let i = 0; i < size; i++) real[i] = (samples[start + i] || 0) * window[i];
    asd.fft(real, imaginary);
    for (let r = 0; r < rows; r++) {
      const first = Math.floor(edges[r]), last = Math.max(first + 1, Math.floor(edges[r + 1]));
      let power = 0;
      for (let b = first; b < last && b <= size / 2; b++) power += real[b] ** 2 + imaginary[b] ** 2;
      levels[c * rows + r] = 10 * Math.log10((power / (last - first)) * (4 / size ** 2) + 1e-13);
    }
  }
  return levels;
};

asd.paint = function (canvas, levels, columns, rows, floor, ceiling) {
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d"), image = context.createImageData(columns, rows);
  for (let c = 0; c < columns; c++) {
    for (let r = 0; r < rows; r++) {
      const value = Math.round((255 * (levels[c * rows + r] - floor)) / (ceiling - floor));
      const from = 3 * Math.min(255, Math.max(0, value)), to = 4 * ((rows - 1 - r) * columns + c);
      image.data.set([asd.colours[from], asd.colours[from + 1], asd.colours[from + 2], 255], to);
    }
  }
  context.putImageData(image, 0, 0);
};

// One more column after the other, the newest on the right; bytes as the daemon sends them, lowest band first
asd.Scroller = class {
  constructor(canvas, rows) {
    this.canvas = canvas;
    this.rows = rows;
    this.context = canvas.getContext("2d");
    this.context.fillStyle = "rgb(0, 0, 4)";
    this.context.fillRect(0, 0, canvas.width, canvas.height);
    this.floor = this.ceiling = null;
  }

  // Bytes between black and white: the softest and the loudest of what is heard, followed slowly so that a picture keeps its scale
  adapt(bytes) {
    const sorted = Uint8Array.from(bytes).sort(), low = sorted[Math.floor(sorted.length * 0.03)] - 6, high = sorted[Math.floor(sorted.length * 0.995)] + 6;
    const part = this.floor === null ? 1 : 0.02;
    this.floor = (this.floor ?? 0) + part * (low - (this.floor ?? 0));
    this.ceiling = (this.ceiling ?? 0) + part * (Math.max(high, low + 60) - (this.ceiling ?? 0));
  }

  add(bytes) {
    const count = Math.min(bytes.length / this.rows, this.canvas.width);
    if (!count) return;
    this.adapt(bytes);
    const { width, height } = this.canvas, image = this.context.createImageData(count, height);
    for (let c = 0; c < count; c++) {
      for (let y = 0; y < height; y++) {
        const row = Math.floor(((height - 1 - y) * this.rows) / height), value = (255 * (bytes[c * this.rows + row] - this.floor)) / (this.ceiling - this.floor);
        const from = 3 * Math.round(Math.min(255, Math.max(0, value)));
        image.data.set([asd.colours[from], asd.colours[from + 1], asd.colours[from + 2], 255], 4 * (y * count + c));
      }
    }
    this.context.drawImage(this.canvas, -count, 0);
    this.context.putImageData(image, width - count, 0);
  }
};
