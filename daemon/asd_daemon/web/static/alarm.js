// The daemon's alarm (judge/alarm/alarm.py) on kept scores: what would have fired at another limit. Tests hold it to the Python.
"use strict";

asd.replay = function (table, rule, limit) {
  const alerts = [], mostRelapses = 9, mostQuiet = 360;
  let recent = [], quiet = 0, open = null, closedAt = null, relapses = 0;
  const over = (since, seconds, now) => since === null || !(now - since >= 0 && now - since < seconds);
  for (let i = 0; i < table.time.length; i++) {
    const score = table.score[i], threshold = limit === null ? table.threshold[i] : limit, at = table.time[i];
    if (Number.isNaN(score) || Number.isNaN(threshold)) continue;
    const anomalous = score > threshold;
    quiet = score <= threshold - rule.hysteresis * Math.abs(threshold) ? quiet + 1 : 0;
    if (open) {
      open.peak = Math.max(open.peak, score);
      if (quiet >= Math.max(rule.close_after, Math.min(rule.close_after * 2 ** relapses, mostQuiet))) {
        open.closed = closedAt = at;
        open = null;
        recent = [];
      }
      continue;
    }
    recent.push({ at, score, anomalous });
    if (recent.length > rule.of) recent.shift();
    const first = recent.findIndex((one) => one.anomalous);
    if (first < 0 || !anomalous) continue;
    const counted = recent.slice(first).filter((one) => one.anomalous);
    if (counted.length < rule.open_after || !over(closedAt, rule.cool_down_s, at)) continue;
    relapses = over(closedAt, rule.relapse_s, at) ? 0 : Math.min(relapses + 1, mostRelapses);
    open = { opened: recent[first].at, closed: null, peak: Math.max(...counted.map((one) => one.score)) };
    alerts.push(open);
  }
  return alerts;
};
