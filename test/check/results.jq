# Reads the events of go test -json. Prints the output of the failed tests, the skipped
# tests with their reasons, and the number of each result.

# A test that crashes its process has no result event: it has failed too.
def result: map(.Action | select(. == "pass" or . == "skip")) | first // "fail";
def output: map(.Output // empty | select(startswith("=== ") | not)) | add // "";
def count(r): map(select(.result == r)) | length;

map(select(.Test))
| group_by([.Package, .Test])
| map({name: "\(.[0].Package) \(.[0].Test)", result: result, output: output})
| (.[] | select(.result == "fail") | "\nfailed: \(.name)\n\(.output)"),
  (.[] | select(.result == "skip") | "skipped: \(.name)\n\(.output | rtrimstr("\n"))"),
  "== \($title): \(count("pass")) passed, \(count("fail")) failed, \(count("skip")) skipped, in \($seconds) s"
