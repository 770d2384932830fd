'use strict';
// A page of a recording: what it has does not change.

data = readData(document);
document.documentElement.classList.add('scripted');
charts = makeCharts();
sortTables();
list = makeList();
