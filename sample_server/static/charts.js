// The charts: lines and bars in the page's colours, light and dark. `Chart` is Chart.js.
/* global Chart */

const MINUTES = 5;
const scheme = matchMedia('(prefers-color-scheme: dark)');
const charts = [];

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

Chart.defaults.animation = false;
Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;

function keep(canvas, config, paint) {
  const chart = new Chart(canvas, config);
  const repaint = () => {
    paint(chart);
    chart.update();
  };
  charts.push(repaint);
  repaint();
  return chart;
}

scheme.addEventListener('change', () => charts.forEach((repaint) => repaint()));

/** A line of the last five minutes without axes; with a `target` it is drawn in, and the scale always shows it. */
export function sparkline(canvas, { target = null } = {}) {
  const line = { data: [], borderWidth: 1.75, pointRadius: 0, tension: 0, fill: true, spanGaps: false };
  const limit = { data: [], borderWidth: 1.5, borderDash: [4, 4], pointRadius: 0 };
  const config = {
    type: 'line',
    data: { datasets: target === null ? [line] : [line, limit] },
    options: {
      responsive: true,
      maintainAspectRatio: false,
      parsing: false,
      normalized: true,
      events: [],
      plugins: { legend: { display: false }, tooltip: { enabled: false } },
      scales: {
        x: { type: 'linear', display: false },
        y: { display: false, beginAtZero: true, suggestedMax: target === null ? 1 : target * 1.15 },
      },
    },
  };
  const chart = keep(canvas, config, ({ data }) => {
    data.datasets[0].borderColor = colour('accent');
    data.datasets[0].backgroundColor = colour('accent-wash');
    if (data.datasets[1]) data.datasets[1].borderColor = colour('amber');
  });
  /** `points`: [{x: epoch seconds, y: number or null}], the newest last. */
  return (points) => {
    const newest = points.at(-1)?.x ?? 0;
    const oldest = newest - MINUTES * 60;
    chart.options.scales.x.min = oldest;
    chart.options.scales.x.max = newest;
    chart.data.datasets[0].data = points;
    if (target !== null) chart.data.datasets[1].data = [{ x: oldest, y: target }, { x: newest, y: target }];
    chart.update();
  };
}

/** Bars. `series`: [{label, colour}], stacked; gives a function of (labels, [numbers of each series]). */
export function bars(canvas, series) {
  const config = {
    type: 'bar',
    data: { labels: [], datasets: series.map(({ label }) => ({ label, data: [], borderRadius: 3, categoryPercentage: 0.9 })) },
    options: {
      responsive: true,
      maintainAspectRatio: false,
      plugins: { legend: { display: false } },
      scales: {
        x: { stacked: true, grid: { display: false }, ticks: { maxRotation: 0, autoSkipPadding: 14 } },
        y: { stacked: true, beginAtZero: true, suggestedMax: 4, ticks: { precision: 0, maxTicksLimit: 5 } },
      },
    },
  };
  const chart = keep(canvas, config, ({ data, options }) => {
    series.forEach(({ colour: name }, number) => {
      data.datasets[number].backgroundColor = colour(name);
    });
    for (const axis of Object.values(options.scales)) {
      axis.ticks.color = colour('soft');
      axis.border = { color: colour('edge') };
    }
    options.scales.y.grid = { color: colour('edge') };
  });
  return (labels, values) => {
    chart.data.labels = labels;
    values.forEach((numbers, number) => {
      chart.data.datasets[number].data = numbers;
    });
    chart.update();
  };
}
