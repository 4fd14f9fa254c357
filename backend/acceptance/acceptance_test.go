// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain runs more scenarios at a time than there are processors, unless the
// command line says otherwise: mostly they wait.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// TestAcceptance runs the scenarios, and then looks for secrets in their logs.
func TestAcceptance(t *testing.T) {
	s := newSuite(t)
	t.Run("scenarios", func(t *testing.T) {
		t.Run("interrupted", s.testInterrupted)
		t.Run("interrupted-root", s.testInterruptedRoot)
		t.Run("failover", s.testFailover)
		t.Run("hasty", s.testHasty)
		t.Run("turning", s.testTurning)
		t.Run("upgrade", s.testUpgrade)
		t.Run("downgrade", s.testDowngrade)
		t.Run("standby", s.testStandby)
		t.Run("standby-upgrade", s.testStandbyUpgrade)
		t.Run("declared", s.testDeclared)
		t.Run("declared-image", s.testDeclaredImage)
		testscript.Run(t, testscript.Params{
			Dir:                filepath.Join("testdata", "script"),
			Setup:              s.setup,
			Cmds:               commands(),
			WorkdirRoot:        s.work,
			RequireUniqueNames: true,
		})
	})
	t.Run("leaks", s.checkLeaks)
}
