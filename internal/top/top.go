// Package top is the live screen of `tcpshift top`: it draws what internal/activity has summed up on a terminal, and
// takes the user's keys. It must not make the trace loop wait for the terminal, leave the terminal in another mode, or
// let a name become an escape sequence.
package top

import (
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/gdamore/tcell/v3"
	"github.com/gdamore/tcell/v3/color"

	"github.com/tcpshift/tcpshift/internal/activity"
)

const (
	// frameInterval is the least time between two frames.
	frameInterval = 250 * time.Millisecond
	// lookInterval is the time between two looks for a new snapshot.
	lookInterval = 500 * time.Millisecond
	// finishLimit bounds the wait for the goroutines of the screen.
	finishLimit = 500 * time.Millisecond
)

// Config is what a screen shows.
type Config struct {
	Host  string
	Title string // of what is shown, if that is no host that is traced
	// Snapshot returns the newest snapshot; nil: there is none yet.
	Snapshot func() *activity.Snapshot
	// Wake makes the trace loop look whether a snapshot is due; nil: nothing has to. It is called from another goroutine,
	// and must not wait.
	Wake func()
	// NoColor turns colors off. Otherwise the terminal and NO_COLOR decide.
	NoColor bool
}

// Screen is the screen of a terminal. All methods are safe for concurrent use.
type Screen struct {
	config   Config
	terminal *terminal
	tcell    tcell.Screen
	model    *model
	messages chan string
	overs    chan string
	done     chan struct{} // closed by Close
	quit     chan struct{} // closed when the user wants to quit, or the terminal is gone
	ended    chan struct{} // closed when no key is taken any more
	frames   chan []line   // for paint; it is full while the terminal is slow
	once     sync.Once
}

// Open takes over the terminal of standard input and output, which Close gives back. It fails if they are none.
func Open(c Config) (*Screen, error) {
	t, err := openTerminal()
	if err != nil {
		return nil, err
	}
	options := []tcell.TerminfoScreenOption{tcell.OptNegotiation(false), tcell.OptSanitizeContent(true)}
	if c.NoColor {
		options = append(options, tcell.OptColors(0))
	}
	s := &Screen{
		config: c, terminal: t, model: newModel(c.Host, c.Title), messages: make(chan string, 16), overs: make(chan string, 1),
		done: make(chan struct{}), quit: make(chan struct{}), ended: make(chan struct{}),
		frames: make(chan []line),
	}
	if s.tcell, err = tcell.NewTerminfoScreenFromTty(t, options...); err == nil {
		err = s.tcell.Init()
	}
	if err != nil {
		t.restore()
		return nil, fmt.Errorf("the terminal: %w", err)
	}
	s.model.ascii = s.tcell.CharacterSet() != "UTF-8"
	go s.paint()
	go s.run()
	return s, nil
}

// Quit is closed when the user wants to quit, or the terminal is gone.
func (s *Screen) Quit() <-chan struct{} { return s.quit }

// Message shows a message for the operator. If too many wait, it is not shown.
func (s *Screen) Message(message string) {
	select {
	case s.messages <- message:
	default:
	}
}

// Over says why nothing new comes any more.
func (s *Screen) Over(why string) {
	select {
	case s.overs <- why:
	default:
	}
}

// Close gives the terminal back. It takes less than a second, whatever the terminal does, and may be called several
// times.
func (s *Screen) Close() {
	s.once.Do(func() {
		close(s.done)
		s.terminal.restore()
		select {
		case <-s.ended:
		case <-time.After(finishLimit):
		}
	})
}

// Restore gives the terminal back at once, and does not wait for anything else. Close is still to be called.
func (s *Screen) Restore() { s.terminal.restore() }

// run takes keys and makes frames until Close. It waits for nothing, so q works while the terminal is slow. A panic
// gives the terminal back first.
func (s *Screen) run() {
	defer close(s.ended)
	defer close(s.frames)
	defer s.terminal.restore()
	var quit sync.Once
	looks := time.NewTicker(lookInterval)
	defer looks.Stop()
	frames := time.NewTimer(0) // the first frame
	defer frames.Stop()
	due, drawnAt := true, time.Time{}
	for {
		changed := false
		select {
		case <-s.done:
			return
		case message := <-s.messages:
			s.model.message, changed = text(message), true
		case why := <-s.overs:
			s.model.show(s.config.Snapshot())
			s.model.over, changed = why, true
		case <-looks.C:
			if s.config.Wake != nil {
				s.config.Wake()
			}
			changed = s.model.show(s.config.Snapshot())
		case <-frames.C:
			if s.offer() {
				due, drawnAt = false, time.Now()
			} else {
				frames.Reset(frameInterval) // the terminal is slow: this frame is skipped
			}
		case event, more := <-s.tcell.EventQ():
			wantsQuit := !more
			if more {
				changed, wantsQuit = s.take(event)
			}
			if wantsQuit {
				quit.Do(func() { close(s.quit) })
				<-s.done
				return
			}
		}
		if changed && !due {
			due = true
			frames.Reset(max(0, frameInterval-time.Since(drawnAt)))
		}
	}
}

// take takes an event of the terminal.
func (s *Screen) take(event tcell.Event) (changed, quit bool) {
	switch e := event.(type) {
	case *tcell.EventKey:
		return true, s.model.press(keyOf(e))
	case *tcell.EventResize:
		return true, false
	case *tcell.EventError: // the terminal is gone
		return false, true
	}
	return false, false
}

var keys = map[tcell.Key]key{
	tcell.KeyUp: keyUp, tcell.KeyDown: keyDown, tcell.KeyLeft: keyLeft, tcell.KeyRight: keyRight,
	tcell.KeyPgUp: keyPageUp, tcell.KeyPgDn: keyPageDown, tcell.KeyHome: keyHome, tcell.KeyEnd: keyEnd,
	tcell.KeyEnter: keyEnter, tcell.KeyEscape: keyEscape, tcell.KeyTab: keyTab, tcell.KeyBacktab: keyBackTab,
	tcell.KeyBackspace: keyBackspace, tcell.KeyCtrlC: keyQuit,
}

func keyOf(e *tcell.EventKey) key {
	if e.Key() == tcell.KeyRune {
		return key(e.Str())
	}
	return keys[e.Key()]
}

// styles are the looks of a terminal with colors, monochrome of one without.
var styles = map[look]tcell.Style{
	plain:    tcell.StyleDefault,
	bold:     tcell.StyleDefault.Bold(true),
	dim:      tcell.StyleDefault.Dim(true),
	heading:  tcell.StyleDefault.Bold(true).Underline(true),
	selected: tcell.StyleDefault.Reverse(true),
	good:     tcell.StyleDefault.Foreground(color.Green),
	notable:  tcell.StyleDefault.Bold(true).Foreground(color.Olive),
	bad:      tcell.StyleDefault.Bold(true).Foreground(color.Maroon),
}

var monochrome = map[look]tcell.Style{
	plain: tcell.StyleDefault, bold: styles[bold], dim: styles[dim], heading: styles[heading], selected: styles[selected],
	good: tcell.StyleDefault, notable: styles[bold], bad: styles[bold],
}

// offer makes a frame, unless the last one is still being drawn.
func (s *Screen) offer() (taken bool) {
	size, err := s.terminal.WindowSize()
	if err != nil { // the terminal is gone
		return true
	}
	select {
	case s.frames <- s.model.view(size.Width, size.Height):
		return true
	default:
		return false
	}
}

// paint draws frames until there are no more. A panic gives the terminal back first.
func (s *Screen) paint() {
	defer s.terminal.restore()
	for lines := range s.frames {
		s.draw(lines)
	}
}

// draw draws a frame. It waits for a slow terminal.
func (s *Screen) draw(lines []line) {
	looks := styles
	if s.tcell.Colors() == 0 {
		looks = monochrome
	}
	s.tcell.Clear()
	for y, l := range lines {
		x := 0
		for _, each := range l {
			s.tcell.PutStrStyled(x, y, s.inCharset(each.text), looks[each.look])
			x += line{each}.cells()
		}
	}
	s.tcell.Show()
}

// inCharset replaces what a terminal without UTF-8 cannot show.
func (s *Screen) inCharset(text string) string {
	if !s.model.ascii {
		return text
	}
	b := []rune(text)
	for i, r := range b {
		switch {
		case r == '…':
			b[i] = '~'
		case r >= 0x80:
			b[i] = '?'
		}
	}
	return string(b)
}

// CanShow reports whether a terminal of this TERM can show a screen, and else why not.
func CanShow() error {
	switch term := os.Getenv("TERM"); term {
	case "", "dumb":
		return fmt.Errorf("TERM=%s cannot show a screen", term)
	}
	return nil
}
