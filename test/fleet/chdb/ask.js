// Runs statements in chDB: standard input has a JSON array of them, and each standard output line the answer to one, as
// a JSON string. Statements that begin with LOAD insert the lines of a file into a table: LOAD table path.
'use strict';
const fs = require('fs');
const { Session } = require('chdb');

const session = new Session();
try {
  for (const statement of JSON.parse(fs.readFileSync(0, 'utf8'))) {
    const load = /^LOAD (\S+) (\S+)$/.exec(statement);
    if (load) {
      session.query(`INSERT INTO ${load[1]} FROM INFILE '${load[2]}' SETTINGS input_format_skip_unknown_fields = 1 FORMAT JSONEachRow`);
      console.log('""');
    } else {
      console.log(JSON.stringify(session.query(statement, 'JSONEachRow')));
    }
  }
} catch (error) {
  console.error(String(error));
  process.exitCode = 1;
} finally {
  session.cleanup();
}
