package cli_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// awaitGrowth waits until a file has more than size bytes.
func awaitGrowth(t *testing.T, path string, size int64) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		if info, err := os.Stat(path); err == nil && info.Size() > size {
			return
		}
		if time.Since(began) > waitLimit {
			t.Fatalf("%s did not grow within %v", path, waitLimit)
		}
	}
}

// logrotate(8) rotates a file by rename and SIGHUP without the loss of a line, and by copy and
// truncation without a part of one.
func TestRotation_Logrotate(t *testing.T) {
	requireRoot(t)
	logrotate := lookPath(t, "logrotate")
	for name, how := range map[string]string{
		"rename":       "create 0600 root root\npostrotate\nkill -HUP %d\nendscript",
		"no create":    "nocreate\npostrotate\nkill -HUP %d\nendscript",
		"copytruncate": "copytruncate # %d",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path, config := filepath.Join(dir, "records"), filepath.Join(dir, "config")
			tr := launch(t, flags("--only", "stats", "--stats-interval", "1ms", "--output", path))
			awaitFile(t, path).Close()
			text := fmt.Sprintf("%s {\nrotate 9\nsu root root\n"+how+"\n}\n", path, tr.cmd.Process.Pid)
			if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if out, err := exec.Command(logrotate, "-f", "-s", filepath.Join(dir, "state"), config).CombinedOutput(); err != nil {
					t.Fatalf("logrotate: %v\n%s", err, out)
				}
				awaitGrowth(t, path, 0)
			}
			tr.signal(syscall.SIGTERM)
			r := tr.waitUnread()
			r.mustEnd(t, 0)
			r.mustPrintError(t, "")
			for _, file := range []string{".3", ".2", ".1", ""} {
				content, err := os.ReadFile(path + file)
				if err != nil || !strings.HasSuffix(string(content), "\n") {
					t.Fatalf("%s%s: %v, it ends with %.80q", path, file, err, content[max(0, len(content)-80):])
				}
				r.stdout += string(content)
			}
			if name == "copytruncate" {
				for line := range strings.Lines(r.stdout) {
					if !strings.HasPrefix(line, `{"type":"`) || !strings.HasSuffix(line, "}\n") {
						t.Errorf("the line %q is not whole", line)
					}
				}
				return
			}
			parseStream(t, r)
		})
	}
}

// If the path cannot be opened again, the file that is open gets the whole stream.
func TestRotation_CannotReopen(t *testing.T) {
	requireRoot(t)
	dir := t.TempDir()
	path, old := filepath.Join(dir, "records"), filepath.Join(dir, "old")
	tr := launch(t, flags("--only", "stats", "--stats-interval", "1ms", "--output", path))
	awaitFile(t, path).Close()
	if err := os.Rename(path, old); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", path); err != nil {
		t.Fatal(err)
	}
	tr.signal(syscall.SIGHUP)
	time.Sleep(100 * time.Millisecond) // the signals are handled in any order
	tr.signal(syscall.SIGTERM)
	r := tr.waitUnread()
	r.mustEnd(t, 0)
	r.mustPrintError(t, "reopen the output: "+path+" is a symbolic link: the file that is open stays in use")
	content, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	r.stdout = string(content)
	parseStream(t, r)
}

// tcpshift rotates a file on its own, also in the sandbox: the old files, compressed, and the last one
// are the whole stream.
func TestRotation_ByItself(t *testing.T) {
	requireRoot(t)
	for _, sandbox := range []string{"--sandbox=false", "--sandbox"} {
		path := filepath.Join(t.TempDir(), "records")
		tr := launch(t, flags(sandbox, "--only", "stats", "--stats-interval", "1ms", "--output", path+"?rotate-size=64KiB&rotate-keep=500&compress=gzip"))
		for began := time.Now(); ; time.Sleep(time.Millisecond) {
			if old, _ := filepath.Glob(path + ".*.gz"); len(old) > 0 {
				break
			}
			if time.Since(began) > waitLimit {
				t.Fatal("no old file")
			}
		}
		tr.signal(syscall.SIGTERM)
		r := tr.waitUnread()
		r.mustEnd(t, 0)
		r.mustPrintError(t, "")
		old, err := filepath.Glob(path + ".*")
		if err != nil {
			t.Fatal(err)
		}
		for _, each := range append(old, path) { // by name, the oldest first
			content, err := exec.Command("zcat", "-f", each).Output()
			if err != nil || len(content) > 64<<10 {
				t.Errorf("%s: %v, %d bytes", each, err, len(content))
			}
			r.stdout += string(content)
		}
		parseStream(t, r)
	}
}
