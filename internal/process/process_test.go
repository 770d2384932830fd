package process

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/boottime"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

func newReader(args bool) *reader {
	r := &reader{proc: "/proc", users: &users{path: "/etc/passwd"}}
	if args {
		r.args = new(argsReader)
	}
	return r
}

// start starts a program that lives until the test ends.
func start(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("cat", args...)
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	return cmd
}

// A real process has its executable, user, parent and start.
func TestRead_RealProcess(t *testing.T) {
	before := boottime.Now() - Tick
	cmd := start(t, "--", "-")
	pid := uint32(cmd.Process.Pid)
	path, err := exec.LookPath("cat")
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		t.Fatal(err)
	}
	now := boottime.Now()
	p, found := newReader(false).read(pid, now)
	if !found || p.PID != pid || p.Parent != uint32(os.Getpid()) || p.UID != uint32(os.Geteuid()) || !p.UIDKnown || p.Args != nil {
		t.Errorf("%+v, found %v", p, found)
	}
	if p.Exe != path || p.StartedAt < before || p.StartedAt > now {
		t.Errorf("%+v, want %s, started from %v to %v", p, path, before, now)
	}
	if os.Geteuid() == 0 && p.User != "root" {
		t.Errorf("the user is %q, want root", p.User)
	}
	if p, _ := newReader(true).read(pid, now); strings.Join(p.Args, "|") != "cat|--|-" {
		t.Errorf("the arguments are %q", p.Args)
	}
}

// A process that has ended is not found, nor is one that started after the event: it is another one.
func TestRead_AnotherProcess(t *testing.T) {
	cmd := start(t)
	pid := uint32(cmd.Process.Pid)
	p, found := newReader(false).read(pid, boottime.Now())
	if !found {
		t.Fatal("the process is not found")
	}
	if _, found := newReader(false).read(pid, p.StartedAt-1); found {
		t.Error("a process is found that started after the event")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if _, found := newReader(false).read(pid, boottime.Now()); found {
		t.Error("a process is found that has ended")
	}
}

// Any content of /proc is read within bounds.
func TestRead_HostileFiles(t *testing.T) {
	proc := t.TempDir()
	dir := filepath.Join(proc, "7")
	stat := "7 (a) b) S 1 " + strings.Repeat("0 ", 15) + "1 0 100 0 0\n"
	for name, content := range map[string]string{
		"stat": stat, "status": "Name:\tx\nUid:\t1\t4294967294\t1\t1\nGroups:\t" + strings.Repeat("1 ", 1<<20),
		"cmdline": "\xff\x1b[2J\x00" + strings.Repeat("x", 1<<20),
	} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(strings.Repeat("/x", 2000), filepath.Join(dir, "exe")); err != nil {
		t.Fatal(err)
	}
	r := newReader(true)
	r.proc = proc
	p, found := r.read(7, time.Hour)
	want := tcp.Process{PID: 7, Parent: 1, StartedAt: time.Second - boottime.NamespaceOffset(), Exe: strings.Repeat("/x", 2000),
		UID: 4294967294, UIDKnown: true, Args: []string{"\xff\x1b[2J"}, ArgsCut: true}
	if !found || !reflect.DeepEqual(p, want) {
		t.Errorf("%+v, found %v; want %+v", p, found, want)
	}
	for _, broken := range []string{"", "7 (a", "7 (a) S 1", strings.Replace(stat, " 100 ", " x ", 1)} {
		if err := os.WriteFile(filepath.Join(dir, "stat"), []byte(broken), 0o644); err != nil {
			t.Fatal(err)
		}
		if p, found := r.read(7, time.Hour); found {
			t.Errorf("%q: %+v", broken, p)
		}
	}
}

// The first name of a user counts. Lines that are none are left out.
func TestUsers_Passwd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "passwd")
	text := "root:x:0:0:root:/root:/bin/sh\n# admin:x:5:5::/:\ntoor:x:0:0::/:\n+::7:::\nweb:x:33:33::/:\n" +
		":x:34:34::/:\nbad:x:nine:9::/:\nshort:x\n" + strings.Repeat("l", 65) + ":x:35:35::/:\n"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	u := users{path: path}
	for uid, want := range map[uint32]string{0: "root", 33: "web", 34: "", 35: "", 5: "", 7: "", 9: "", 1 << 31: ""} {
		if got := u.name(uid); got != want {
			t.Errorf("user %d is %q, want %q", uid, got, want)
		}
	}
	u = users{path: filepath.Join(t.TempDir(), "none")}
	if got := u.name(0); got != "" {
		t.Errorf("without a file: %q", got)
	}
}

// Each request has its answer, in order, and a full queue refuses more.
func TestResolver_Answers(t *testing.T) {
	release := make(chan struct{})
	r := newResolver(func(pid uint32, _ time.Duration) (tcp.Process, bool) {
		<-release
		return tcp.Process{PID: pid}, pid%2 == 0
	})
	defer r.Close()
	woken := make(chan struct{}, maxWaiting)
	r.NotifyAnswers(func() { woken <- struct{}{} })
	accepted := uint32(0)
	for r.Request(Request{PID: accepted, Serial: uint64(accepted) + 1}) {
		accepted++
	}
	if accepted < maxWaiting/2 || accepted > maxWaiting/2+1 {
		t.Errorf("%d requests of one user are accepted, want %d, and one that is being read", accepted, maxWaiting/2)
	}
	if got := r.Finish(time.Millisecond); got != nil {
		t.Errorf("got %+v before anything was read", got)
	}
	release <- struct{}{}
	<-woken
	close(release)
	got := r.Finish(time.Minute)
	if len(got) != int(accepted) {
		t.Fatalf("%d answers, want %d", len(got), accepted)
	}
	for i, a := range got {
		if a.Request.PID != uint32(i) || a.Process.PID != uint32(i) || a.Found != (i%2 == 0) || a.Request.Serial != uint64(i)+1 {
			t.Errorf("answer %d is %+v", i, a)
		}
	}
}

// One user's flood of requests leaves room for those of others, which come next.
func TestResolver_FloodOfOneUser(t *testing.T) {
	w := newWaiting()
	const attacker, range0 = 65534, 1 << 20
	for _, first := range []uint32{attacker, range0} {
		for i := uint32(0); w.add(Request{UID: first + i*(first>>20)}); i++ {
		}
	}
	for _, uid := range []uint32{0, 33} {
		if !w.add(Request{UID: uid, PID: 7}) {
			t.Fatalf("no room for a request of user %d", uid)
		}
	}
	for turn := 1; ; turn++ {
		q, found := w.take()
		if !found || turn > 4 {
			t.Fatalf("turn %d: %+v, %v", turn, q, found)
		}
		if q.UID == 33 {
			break
		}
	}
	for found := true; found; {
		_, found = w.take()
	}
	if w.total != 0 || len(w.byUser) != 0 || len(w.turns) != 0 {
		t.Errorf("it keeps %d requests of %d users, %d turns", w.total, len(w.byUser), len(w.turns))
	}
}

// A secret in the arguments of a real process is not read.
func TestRead_NoSecret(t *testing.T) {
	cmd := start(t, "--", "-", "/dev/null", "--password=hunter2")
	p, found := newReader(true).read(uint32(cmd.Process.Pid), boottime.Now())
	if want := "cat|--|-|/dev/null|--password=" + redacted; !found || strings.Join(p.Args, "|") != want {
		t.Errorf("pid %s: %q, want %q", strconv.Itoa(cmd.Process.Pid), p.Args, want)
	}
}
