// On a phone a table becomes a list: each cell shows the heading of its column.
// fapilog.css does the rest.  Without this script, tables scroll sideways.
const MOST_COLUMNS = 5; // a wider table is a matrix, which makes sense only as a whole

document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("table.docutils")) {
    const headings = [...table.querySelectorAll("thead th")].map((cell) => cell.textContent.trim());
    table.classList.add(headings.length > MOST_COLUMNS ? "is-matrix" : "becomes-list");
    for (const row of table.querySelectorAll("tbody tr")) {
      [...row.cells].forEach((cell, column) => {
        if (headings[column]) cell.dataset.heading = headings[column];
        cell.classList.toggle("is-empty", !cell.textContent.trim());
      });
    }
  }
});
