package fleet_test

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// simulated is a host: a network namespace, whose tcpshift has a host name, a boot id and a /var/log of its own.
type simulated struct {
	t        testing.TB
	n        *tcplab.Netns
	name     string
	bootID   string
	logs     string // the directory that is its /var/log
	tcpshift *exec.Cmd
}

// ownIdentity gives the process a host name, a boot id and a /var/log before it executes its arguments.
const ownIdentity = `set -eu
mount --make-rprivate /
mount --bind "$LOGS" /var/log
if [ -n "${BOOT_ID_FILE:-}" ]; then
    echo "$HOST_NAME" >/proc/sys/kernel/hostname
    mount --bind "$BOOT_ID_FILE" /proc/sys/kernel/random/boot_id
fi
exec "$@"
`

func newHost(t testing.TB, name, bootID string) *simulated {
	t.Helper()
	h := &simulated{t: t, n: tcplab.NewNetns(t), name: name, bootID: bootID, logs: t.TempDir()}
	h.n.Sysctl("net.ipv4.ip_local_port_range", "20000 20999")
	h.n.Sysctl("net.ipv4.tcp_tw_reuse", "0")
	return h
}

// inOwnMounts returns a command that has the host's /var/log.
func (h *simulated) inOwnMounts(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("sh", append([]string{"-c", ownIdentity, "sh", name}, args...)...)
	cmd.Env = append(os.Environ(), "LOGS="+h.logs)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	return cmd
}

// tcpshiftCommand is the command at the top of load.sh.
var tcpshiftCommand = regexp.MustCompile(`(?m)^#     tcpshift (.*)$`)

// trace starts tcpshift with the command in load.sh, for this namespace only and with shorter intervals, and waits until
// it traces.
func (h *simulated) trace() {
	h.t.Helper()
	match := tcpshiftCommand.FindStringSubmatch(readFile(h.t, filepath.Join(fleetDir, "load.sh")))
	if match == nil {
		h.t.Fatal("load.sh has no command of tcpshift")
	}
	args := strings.Fields(strings.ReplaceAll(match[1], "'", ""))
	args = append(args, "--netns", strconv.FormatUint(uint64(h.n.Inode()), 10), "--updates", "1s",
		"--close-wait-age", "10s", "--close-wait-count", "8")
	path, err := program()
	if err != nil {
		h.t.Fatal(err)
	}
	h.tcpshift = h.inOwnMounts(path, args...)
	file := filepath.Join(h.t.TempDir(), "boot_id")
	if err := os.WriteFile(file, []byte(h.bootID+"\n"), 0o600); err != nil {
		h.t.Fatal(err)
	}
	h.tcpshift.Env = append(h.tcpshift.Env, "BOOT_ID_FILE="+file, "HOST_NAME="+h.name)
	h.tcpshift.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUTS
	h.start(h.tcpshift)
	await(h.t, "start of tcpshift", func() bool { return len(h.lines()) > 0 })
}

// start starts a command in the host's network namespace, and kills it at the end of the test if it still runs.
func (h *simulated) start(cmd *exec.Cmd) {
	h.t.Helper()
	startIn(h.t, h.n, cmd)
}

func startIn(t testing.TB, n *tcplab.Netns, cmd *exec.Cmd) {
	t.Helper()
	cmd.Stderr = os.Stderr
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL // also if the test runs out of time
	var err error
	n.Do(func() { err = cmd.Start() })
	if err != nil {
		t.Fatalf("%s: %v", cmd.Path, err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
}

// stop ends tcpshift with SIGTERM, and renames its file as a rotation does.
func (h *simulated) stop() {
	h.t.Helper()
	if err := h.tcpshift.Process.Signal(syscall.SIGTERM); err != nil {
		h.t.Fatal(err)
	}
	if err := h.tcpshift.Wait(); err != nil {
		h.t.Errorf("tcpshift of %s: %v", h.name, err)
	}
	file := h.logs + "/tcpshift.ndjson"
	if err := os.Rename(file, file+".29991231T000000.000000000Z"); err != nil {
		h.t.Fatal(err)
	}
}

// files returns what tcpshift has written, the old files first.
func (h *simulated) files() []string {
	old, _ := filepath.Glob(h.logs + "/tcpshift.ndjson.2*")
	return append(old, h.logs+"/tcpshift.ndjson")
}

// lines returns the whole lines that tcpshift has written.
func (h *simulated) lines() (lines []string) {
	for _, file := range h.files() {
		text, _ := os.ReadFile(file) // a rotation may have just renamed it
		all := strings.SplitAfter(string(text), "\n")
		lines = append(lines, all[:len(all)-1]...)
	}
	return lines
}

// record has the keys of a record that the tests use.
type record struct {
	Type, Time, Phase, Kind, Conn, Comm, State, Role string
	BootID                                           string `json:"boot_id"`
	LocalAddr                                        string `json:"local_addr"`
	LocalPort                                        uint16 `json:"local_port"`
	PeerAddr                                         string `json:"peer_addr"`
	PeerPort                                         uint16 `json:"peer_port"`
	DurationNs                                       int64  `json:"duration_ns"`
}

func (h *simulated) records() (records []record) {
	h.t.Helper()
	for _, line := range h.lines() {
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			h.t.Fatalf("%v: %s", err, line)
		}
		records = append(records, r)
	}
	return records
}

// awaitAlert waits until an alert of this kind is written.
func (h *simulated) awaitAlert(kind string) {
	h.t.Helper()
	await(h.t, kind+" of "+h.name, func() bool {
		return strings.Contains(strings.Join(h.lines(), ""), `"kind":"`+kind+`"`)
	})
}

// serve starts a server, which ends with the test.
func (h *simulated) serve(a actor) {
	h.t.Helper()
	cmd := h.actor(a)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	h.start(cmd)
	h.t.Cleanup(func() { _ = stdin.Close() })
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		h.t.Fatalf("%s does not listen: %v", a.Name, err)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
}

// connect starts a client. The function that it returns waits until the client has made all of its connections.
func (h *simulated) connect(a actor) (wait func()) {
	h.t.Helper()
	cmd := h.actor(a)
	h.start(cmd)
	return func() {
		h.t.Helper()
		if err := cmd.Wait(); err != nil {
			h.t.Fatalf("%s: %v", a.Name, err)
		}
	}
}

func (h *simulated) actor(a actor) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), actorEnv+"="+string(must(json.Marshal(a))))
	return cmd
}
