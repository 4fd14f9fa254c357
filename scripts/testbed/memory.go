// SPDX-License-Identifier: MPL-2.0

package testbed

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Running returns the ids of the children of the process that run a program, by the
// name of its file. Vault runs all mounts of a plugin in one.
func (p *Process) Running(program string) ([]int, error) {
	children, err := p.Children()
	if err != nil {
		return nil, err
	}
	var found []int
	for _, pid := range children {
		file, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "exe"))
		if err == nil && filepath.Base(file) == program {
			found = append(found, pid)
		}
	}
	return found, nil
}

// ResidentMemory returns how many bytes of memory the children of the process hold
// that run a program, as the proc file system of Linux tells it.
func (p *Process) ResidentMemory(program string) (int, error) {
	pids, err := p.Running(program)
	if err != nil {
		return 0, err
	}
	if len(pids) == 0 {
		return 0, fmt.Errorf("no %s is running", program)
	}
	total := 0
	for _, pid := range pids {
		status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
		if err != nil {
			return 0, err
		}
		resident, err := residentMemory(status)
		if err != nil {
			return 0, err
		}
		total += resident
	}
	return total, nil
}

// residentMemory takes the figure out of the kernel's description of a process:
// "VmRSS:     31204 kB".
func residentMemory(status []byte) (int, error) {
	for lines := bufio.NewScanner(bytes.NewReader(status)); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			kilobytes, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(text, "kB")))
			return kilobytes * 1024, err
		}
	}
	return 0, fmt.Errorf("no resident memory in %d bytes of status", len(status))
}
