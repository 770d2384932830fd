package main

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/record"
)

// The values of --color.
const (
	colorAuto   = "auto"
	colorAlways = "always"
	colorNever  = "never"
)

func parseColor(s string) (string, error) {
	if s != colorAuto && s != colorAlways && s != colorNever {
		return "", fmt.Errorf("%q is not a color mode: use %s, %s or %s", s, colorAuto, colorAlways, colorNever)
	}
	return s, nil
}

// stderrPath is standard error as an output.
const stderrPath = "/dev/stderr"

// textEncoder returns the encoder of the text format for an output path. Only standard
// output and error may be a terminal: lines in a file do not depend on who started tcpshift.
func textEncoder(color, path string) record.Text {
	text := record.Text{Color: color == colorAlways}
	fd := map[string]int{"-": unix.Stdout, stderrPath: unix.Stderr}[path]
	if fd > 0 && isTerminal(fd) {
		text.Screen = &record.Screen{Size: func() (columns, rows int) { return terminalSize(fd) }}
		text.Color = text.Color || color == colorAuto && colorIsWanted()
	}
	return text
}

// isTerminal reports whether a descriptor is a terminal.
func isTerminal(fd int) bool {
	_, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
	return err == nil
}

// terminalSize returns the size of a terminal in character cells.
// A terminal that does not know its size, such as a serial line, counts as 80 by 24.
func terminalSize(fd int) (columns, rows int) {
	size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
	if err != nil || size.Col == 0 || size.Row == 0 {
		return 80, 24
	}
	return int(size.Col), int(size.Row)
}

// colorIsWanted reports whether the environment allows colors: NO_COLOR
// (https://no-color.org) forbids them, and so does a TERM without colors.
func colorIsWanted() bool {
	term := os.Getenv("TERM")
	return os.Getenv("NO_COLOR") == "" && term != "" && term != "dumb"
}

// verdictColors colors the verdicts that doctor begins its lines with.
type verdictColors struct{ w io.Writer }

// Write takes whole lines and colors the verdict of each.
func (v verdictColors) Write(p []byte) (int, error) {
	const green, red, reset = "\x1b[32m", "\x1b[31m", "\x1b[0m"
	var colored []byte
	for line := range bytes.Lines(p) {
		verdict, color := line[:0], ""
		switch {
		case bytes.HasPrefix(line, []byte("yes ")):
			verdict, color = line[:len("yes")], green
		case bytes.HasPrefix(line, []byte("no ")):
			verdict, color = line[:len("no")], red
		}
		if color != "" {
			colored = fmt.Appendf(colored, "%s%s%s", color, verdict, reset)
		}
		colored = append(colored, line[len(verdict):]...)
	}
	if _, err := v.w.Write(colored); err != nil {
		return 0, err
	}
	return len(p), nil
}
