// Runs statements in chDB. Each line of standard input is a JSON object with the statement and the format of its
// answer, and each line of standard output the answer, as a JSON string, or an object with an error. LOAD TABLE FILE
// inserts the lines of a file.
'use strict';
const readline = require('readline');
const { Session } = require('chdb');

const session = new Session();
function answer({ statement, format }) {
  const load = /^LOAD (\S+) (\S+)$/.exec(statement);
  if (load) {
    statement = `INSERT INTO ${load[1]} FROM INFILE '${load[2]}' SETTINGS input_format_skip_unknown_fields = 1 FORMAT JSONEachRow`;
  }
  return session.query(statement, format);
}

const lines = readline.createInterface({ input: process.stdin });
lines.on('line', (line) => {
  let text;
  try {
    text = JSON.stringify({ answer: String(answer(JSON.parse(line))) });
  } catch (error) {
    text = JSON.stringify({ error: String(error) });
  }
  process.stdout.write(text + '\n');
});
lines.on('close', () => session.cleanup());
