// Scores from the server, unpacked (score_tables.py says how they are packed), and what charts have in common.
"use strict";

asd.scores = async function (machine, from, to) {
  const answer = await fetch(`/api/scores?${new URLSearchParams({ machine, from, to })}`);
  if (!answer.ok) throw new Error(await answer.text());
  const buffer = await answer.arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const n = head.windows;
  let at = 4 + length;
  const take = (Kind) => {
    const values = new Kind(buffer.slice(at, at + n * Kind.BYTES_PER_ELEMENT));
    at += n * Kind.BYTES_PER_ELEMENT;
    return values;
  };
  const [time, score, threshold] = [take(Float64Array), take(Float32Array), take(Float32Array)];
  return { time, score, threshold, reason: take(Uint8Array), reasons: head.reasons, bucket: head.bucket_s };
};

// The usual score over time, in which a drift shows: mean of the windows below their limit, with a time constant
asd.usual = function (table, constant) {
  let mean = NaN, before = NaN;
  return Array.from(table.time, (time, i) => {
    const score = table.score[i];
    if (!Number.isNaN(score) && !(score > table.threshold[i])) {
      const weight = Number.isNaN(mean) ? 1 : 1 - Math.exp(-Math.max(1, time - before) / constant);
      mean = Number.isNaN(mean) ? score : mean + weight * (score - mean);
      before = time;
    }
    return mean;
  });
};

// uPlot wants null where there is nothing; a line is not drawn over a time without windows
asd.series = function (table) {
  const time = [], score = [], threshold = [], usual = [];
  const last = table.time.at(-1) - table.time[0] || 0, means = asd.usual(table, Math.max(3600, last / 24));
  const gap = Math.max(60, 3 * table.bucket);
  for (let i = 0; i < table.time.length; i++) {
    if (i && table.time[i] - table.time[i - 1] > gap) {
      time.push(table.time[i - 1] + 1);
      score.push(null);
      threshold.push(null);
      usual.push(null);
    }
    time.push(table.time[i]);
    score.push(Number.isNaN(table.score[i]) ? null : table.score[i]);
    threshold.push(Number.isNaN(table.threshold[i]) ? null : table.threshold[i]);
    usual.push(Number.isNaN(means[i]) ? null : means[i]);
  }
  return [time, score, threshold, usual];
};

asd.axis = function (small) {
  return {
    stroke: () => asd.colour("soft"),
    grid: { stroke: () => asd.colour("grid"), width: 1 },
    ticks: { show: false },
    font: `${small ? 11 : 12}px system-ui, sans-serif`,
  };
};

asd.clock = [
  [86400, "{DD}.{MM}.", null, null, null, null, null, null, 1],
  [3600, "{HH}:{mm}", "\n{DD}.{MM}.", null, "\n{DD}.{MM}.", null, null, null, 1],
  [60, "{HH}:{mm}", "\n{DD}.{MM}.", null, "\n{DD}.{MM}.", null, null, null, 1],
  [1, "{HH}:{mm}:{ss}", "\n{DD}.{MM}.", null, "\n{DD}.{MM}.", null, null, null, 1],
];
