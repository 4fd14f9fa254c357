// SPDX-License-Identifier: MPL-2.0

package graph

import "errors"

// Explain returns the text of err and, if there is an [Error] with a hint in its chain,
// what to do about it.
func Explain(err error) string {
	if e, ok := errors.AsType[*Error](err); ok && e.Hint() != "" {
		return err.Error() + ": " + e.Hint()
	}
	return err.Error()
}
