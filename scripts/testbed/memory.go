// SPDX-License-Identifier: MPL-2.0

package testbed

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
)

// Running returns the ids of the process's children that run a program, given by the
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

// ResidentMemory returns the resident memory, in bytes, of the process's children that
// run a program. It reads the proc file system of Linux.
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

// residentSet is the line of the kernel's description of a process that has its memory.
var residentSet = regexp.MustCompile(`(?m)^VmRSS:\s*(\d+) kB$`)

func residentMemory(status []byte) (int, error) {
	found := residentSet.FindSubmatch(status)
	if found == nil {
		return 0, fmt.Errorf("no resident memory in %d bytes of status", len(status))
	}
	kilobytes, err := strconv.Atoi(string(found[1]))
	return kilobytes * 1024, err
}
