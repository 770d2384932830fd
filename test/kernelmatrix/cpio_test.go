package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// cpio(1) can unpack an archive, if it is installed. The kernel unpacks one in every
// run of the matrix.
func TestCpio_CanBeUnpacked(t *testing.T) {
	var b strings.Builder
	a := archive{w: &b}
	a.add(entry{name: "dev", mode: typeDir | 0o755})
	a.add(entry{name: "dev/console", mode: typeDevice | 0o600, major: 5, minor: 1})
	a.add(entry{name: "init", mode: typeFile | 0o755, content: []byte("hello")})
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	if b.Len()%4 != 0 {
		t.Errorf("%d bytes, want a multiple of four", b.Len())
	}
	const file = "070701" + "00000003" + "000081ed" + "00000000" + "00000000" + "00000001" + "00000000" + "00000005" +
		"00000000" + "00000000" + "00000000" + "00000000" + "00000005" + "00000000" + "init\x00" + "\x00" + "hello" + "\x00\x00\x00" + "070701"
	if !strings.Contains(b.String(), file) {
		t.Errorf("no file in %q", b.String())
	}
	if _, err := exec.LookPath("cpio"); err != nil {
		return
	}
	dir := t.TempDir()
	unpack := exec.Command("cpio", "--extract", "--quiet", "init", "dev")
	unpack.Dir, unpack.Stdin = dir, strings.NewReader(b.String())
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v\n%s", err, out)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "init")); err != nil || string(got) != "hello" {
		t.Errorf("unpacked %q, %v", got, err)
	}
}
