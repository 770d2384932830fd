package cli_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// recordingLine is a recording with one record.
const recordingLine = `{"type":"connection","time":"2026-11-22T12:23:24.112530594Z","seq":1,"conn":"2b","role":"client","comm":"<b>curl","closed_by":"refused"}` + "\n"

// report reads files, compressed ones and standard input, and writes a page to a file or to standard output.
func TestReport_InputsAndOutputs(t *testing.T) {
	dir := t.TempDir()
	plain, zipped, page := filepath.Join(dir, "plain"), filepath.Join(dir, "zipped.gz"), filepath.Join(dir, "page.html")
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write([]byte(strings.Replace(recordingLine, `"seq":1,"conn":"2b"`, `"seq":2,"conn":"2c"`, 1)))
	if err := errors.Join(err, w.Close(), os.WriteFile(zipped, b.Bytes(), 0o600), os.WriteFile(plain, []byte(recordingLine), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"report", plain, zipped, "-o", page}, {"report", zipped, "--output=" + page, "-"}} {
		r := run(args, func(cmd *exec.Cmd) { cmd.Stdin = strings.NewReader(recordingLine) })
		r.mustEnd(t, 0)
		r.mustPrintError(t, "")
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(text, []byte(`id="n-connections" value="2"`)) || bytes.Contains(text, []byte("<b>curl")) || r.stdout != "" {
			t.Errorf("the page does not have the two connections, or has markup of theirs\n%v\n%s", r, text)
		}
	}
	if r := run(flags("report", plain, "-o", "-")); r.status != 0 || !strings.HasPrefix(r.stdout, "<!DOCTYPE html>") || !strings.HasSuffix(r.stdout, "</html>\n") {
		t.Errorf("the page is not on standard output\n%v", r)
	}
}

// report ends with status 1 and one line if there is no recording, or if it must not write the page; nothing is left
// behind.
func TestReport_Refused(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	err := errors.Join(os.WriteFile(path("plain"), []byte(recordingLine), 0o600), os.WriteFile(path("empty"), nil, 0o600),
		os.WriteFile(path("other"), []byte("secret\n"), 0o600), os.Symlink("other", path("link")))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{flags(path("missing")), "open " + path("missing") + ": no such file or directory"},
		{flags(dir), dir + " is a directory"},
		{flags(path("empty")), path("empty") + " has no record of the native schema: it is empty"},
		{flags(path("plain"), path("other")), path("other") + " has no record of the native schema: line 1: it is not JSON"},
		{flags(path("plain"), "-o", path("link")), "--output: " + path("link") + " is not a regular file: name another file"},
		{flags(path("plain"), "-o", path("no/page")), "--output: open " + path("no") + ": no such file or directory"},
	} {
		r := run(append(flags("report", "-o", path("page")), c.args...))
		r.mustEnd(t, 1)
		r.mustPrintError(t, c.want)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 4 {
		t.Errorf("the directory has %v, %v", names, err)
	}
	if text, err := os.ReadFile(path("other")); err != nil || string(text) != "secret\n" {
		t.Errorf("the file behind the link has %q, %v", text, err)
	}
}
