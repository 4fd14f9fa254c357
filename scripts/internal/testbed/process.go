// SPDX-License-Identifier: MPL-2.0

package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

const (
	readyWithin = 30 * time.Second
	stopWithin  = 15 * time.Second
)

// Process is a program that runs in the background and writes to a log file.
//
// It has a process group of its own: Ctrl-C on the terminal reaches only the
// program that started it, which then stops everything in order.
type Process struct {
	cmd   *exec.Cmd
	log   string
	ended chan struct{}
	stop  context.CancelFunc
}

// Start runs a program until [Process.Stop] is called. Its output is appended to
// the log file; it gets env and nothing else as its environment.
func Start(log string, env []string, name string, args ...string) (*Process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600) //nolint:gosec // a file of this run's folder
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }() // the process has its own
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // the caller names a program that was built for this
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = stopWithin // then it is killed
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	p := &Process{cmd: cmd, log: log, ended: make(chan struct{}), stop: cancel}
	go func() {
		_ = cmd.Wait() // it is no failure to be stopped
		close(p.ended)
	}()
	return p, nil
}

// Stop ends the process politely, after a while for good, and then what is left of
// its group, such as a plugin that was not told.
func (p *Process) Stop() {
	p.stop()
	<-p.ended
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // usually nobody is left
}

// Ended is closed when the process has ended, by itself or not.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// await waits until ready says so; the process must not end before.
func (p *Process) await(ctx context.Context, ready func(context.Context) bool) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for !ready(ctx) {
		select {
		case <-p.ended:
			text, err := os.ReadFile(p.log)
			return errors.Join(fmt.Errorf("%s ended by itself:\n%s", filepath.Base(p.cmd.Path), text), err)
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", filepath.Base(p.cmd.Path), ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}
