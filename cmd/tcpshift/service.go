package main

import (
	"context"
	"os"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/tcpshift/tcpshift/internal/trace"
)

// shortestWatchdog is the least WatchdogSec= that works: a loop without events sleeps for up to 5 s.
const shortestWatchdog = 15 * time.Second

// serviceSocket is the path of the socket by which systemd learns how this process is: see sd_notify(3);
// "": it does not want to know.
func serviceSocket() string { return os.Getenv("NOTIFY_SOCKET") }

// notifyService reports the state of this process to systemd, if that wants to know.
func notifyService(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		warn("systemd does not take the state of this process: " + err.Error())
	}
}

// reportTo makes a trace report to systemd when it is ready, that its loop turns, and that it ends. It returns
// a function that ends the reports.
func reportTo(ctx context.Context, cfg *trace.Config) (end func()) {
	if serviceSocket() == "" {
		return func() {}
	}
	started := cfg.Started
	cfg.Started = func() error {
		if started != nil {
			if err := started(); err != nil {
				return err
			}
		}
		go notifyService(daemon.SdNotifyReady)
		return nil
	}
	ended, cancel := context.WithCancel(context.Background())
	stop := context.AfterFunc(ctx, func() { notifyService(daemon.SdNotifyStopping) })
	cfg.Turned = watchdog(ended)
	return func() { stop(); cancel() }
}

// watchdog reports that the loop turns, until ctx is done. It returns the function that the loop calls in each
// turn; nil: systemd does not want to know. The loop does not wait for systemd.
func watchdog(ctx context.Context) (turned func()) {
	limit, err := daemon.SdWatchdogEnabled(false)
	switch {
	case err != nil:
		warn("the watchdog is off: " + err.Error())
		return nil
	case limit == 0:
		return nil
	case limit < shortestWatchdog:
		warn("WatchdogSec= is short: use 15s or more")
	}
	var turns atomic.Bool
	go func() {
		ticker := time.NewTicker(limit / 3)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				if turns.Swap(false) {
					notifyService(daemon.SdNotifyWatchdog)
				}
			}
		}
	}()
	return func() { turns.Store(true) }
}
