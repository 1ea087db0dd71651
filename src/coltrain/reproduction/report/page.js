// Values under the pointer or finger, and by the arrow keys. The page says all it has to say without.
for (const drawing of document.querySelectorAll("svg[data-readings]")) {
  const readings = JSON.parse(drawing.dataset.readings);
  const pointer = drawing.querySelector(".pointer");
  const reading = drawing.parentElement.querySelector(".reading");
  let current = readings.length - 1;
  const say = (place) => {
    current = Math.min(Math.max(place, 0), readings.length - 1);
    reading.textContent = readings[current][1];
  };
  const show = (place) => {
    say(place);
    pointer.setAttribute("x1", readings[current][0]);
    pointer.setAttribute("x2", readings[current][0]);
  };
  const follow = (event) => {
    const box = drawing.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * drawing.viewBox.baseVal.width;
    let nearest = 0;
    readings.forEach(([at], place) => {
      if (Math.abs(at - x) < Math.abs(readings[nearest][0] - x)) nearest = place;
    });
    show(nearest);
  };
  drawing.addEventListener("pointermove", follow);
  drawing.addEventListener("pointerdown", follow);
  drawing.setAttribute("tabindex", "0");
  drawing.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (way) {
      event.preventDefault();
      show(current + way);
    }
  });
  say(current);
}
