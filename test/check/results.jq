# From the events of go test -json: all that the tests which failed have
# written, the skipped tests with their reasons, and the sums.

# A test that brings its process down ends with no result: it has failed too.
def result: map(.Action | select(. == "pass" or . == "skip")) | first // "fail";
def output: map(.Output // empty | select(startswith("=== ") | not)) | add // "";
def count(r): map(select(.result == r)) | length;

map(select(.Test))
| group_by([.Package, .Test])
| map({name: "\(.[0].Package) \(.[0].Test)", result: result, output: output})
| (.[] | select(.result == "fail") | "\nfailed: \(.name)\n\(.output)"),
  (.[] | select(.result == "skip") | "skipped: \(.name)\n\(.output | rtrimstr("\n"))"),
  "== \($title): \(count("pass")) passed, \(count("fail")) failed, \(count("skip")) skipped"
