// Command browser drives a headless Chromium for the tests of pages. It is a module of its own, so that the
// DevTools protocol is no dependency of tcpshift.
//
//	browser CHROMIUM
//
// It reads steps from standard input, and writes an answer to each to standard output, both as JSON.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// stepLimit bounds each step.
const stepLimit = 60 * time.Second

// step is what to do. One of Open, Evaluate, Press and Screenshot is set.
type step struct {
	Open       string // an address
	Width      int64  // of the window, with Open
	Height     int64
	Scheme     string // light or dark, with Open
	Evaluate   string // an expression of JavaScript, whose value becomes the answer's
	Press      string // the name of a key, or what to type
	Screenshot string // the path of a PNG to write, of the window
}

// answer is the result of a step.
type answer struct {
	Value    any
	Error    string
	Requests []string // the addresses of all requests so far
	Problems []string // exceptions, and messages of the console and of the policy, so far
}

var keys = map[string]string{
	"Tab": kb.Tab, "Enter": kb.Enter, "ArrowLeft": kb.ArrowLeft, "ArrowRight": kb.ArrowRight, "Home": kb.Home, "End": kb.End, "Escape": kb.Escape,
}

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "browser:", err)
		os.Exit(1)
	}
}

func run(chromium string) error {
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium), chromedp.NoSandbox, // the tests run as root
		chromedp.Flag("hide-scrollbars", true), chromedp.Flag("force-color-profile", "srgb"))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	defer cancel()
	ctx, cancel = chromedp.NewContext(ctx)
	defer cancel()
	var mu sync.Mutex
	var seen answer
	if err := chromedp.Do(ctx); err != nil { // opens the tab
		return err
	}
	err := chromedp.Listen(ctx, func(event any) {
		mu.Lock()
		defer mu.Unlock()
		switch e := event.(type) {
		case *network.EventRequestWillBeSent:
			seen.Requests = append(seen.Requests, e.Request.URL)
		case *runtime.EventExceptionThrown:
			problem := e.ExceptionDetails.Text
			if e.ExceptionDetails.Exception != nil {
				problem += ": " + e.ExceptionDetails.Exception.Description
			}
			seen.Problems = append(seen.Problems, problem)
		case *log.EventEntryAdded:
			seen.Problems = append(seen.Problems, e.Entry.Text)
		case *runtime.EventConsoleAPICalled:
			seen.Problems = append(seen.Problems, fmt.Sprintf("console.%s", e.Type))
		}
	})
	if err == nil {
		err = chromedp.Do(ctx, command(network.Enable, network.EnableParams{}), command(log.Enable, cdp.Empty{}))
	}
	if err != nil {
		return err
	}
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var s step
		if err := in.Decode(&s); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		value, err := s.do(ctx)
		mu.Lock()
		a := answer{Value: value, Requests: seen.Requests, Problems: seen.Problems}
		mu.Unlock()
		if err != nil {
			a.Error = err.Error()
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
}

// command returns an action that sends a command of the DevTools protocol.
func command[P any](c cdp.Command[P, cdp.Empty], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, c, params)
		return err
	})
}

// do executes the step. value is that of Evaluate, and else nil.
func (s *step) do(ctx context.Context) (value any, err error) {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	switch {
	case s.Open != "":
		scheme := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: s.Scheme}}
		return nil, chromedp.Do(ctx, chromedp.EmulateViewport(s.Width, s.Height),
			command(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: scheme}), chromedp.Navigate(s.Open))
	case s.Evaluate != "":
		return chromedp.Run(ctx, chromedp.Evaluate[any](s.Evaluate))
	case s.Press != "":
		key := s.Press
		if named, ok := keys[key]; ok {
			key = named
		}
		return nil, chromedp.Do(ctx, chromedp.KeyEvent(key))
	case s.Screenshot != "":
		png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
		if err != nil {
			return nil, err
		}
		return nil, os.WriteFile(s.Screenshot, png, 0o644)
	}
	return nil, errors.New("the step is empty")
}
