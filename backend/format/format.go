// SPDX-License-Identifier: MPL-2.0

// Package format owns the number of the form in which the entries of a mount are stored.
//
// It exists for the way back: a version that is started after a newer one learns whether
// it can go on from what that one has stored. There is one number for the whole mount. One
// in each entry would make the ledger's pages grow, which are written at each read, and it
// would take a look into all of them to learn the same.
//
// The number is stored when the mount starts, before anything in its form. It only grows:
// after a step back, entries of the newer form are still there. It is never a reason to
// fail.
package format

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/store"
)

// StorageKey is where the number is stored.
const StorageKey = "format"

// Form 1 is that of version 0.1.x, which stores no number. Form 2 has the credentials that
// the engine has made in one list, and their old fields beside it.
const (
	// Number is the form of this version. It grows with each change of what is stored.
	Number = 2
	// readableFrom is the lowest form whose versions can go on from what this one stores.
	// It grows when an entry is no longer also written in its old form.
	readableFrom = 1
)

var errUnreadable = errors.New("the stored format number cannot be decoded")

// mark is what is stored.
type mark struct {
	Format       int `json:"format"`        // the highest that has been written here
	ReadableFrom int `json:"readable_from"` // the lowest that can read all of that
}

// NewerError says that a newer version has stored what this one may not understand.
type NewerError struct{ ReadableFrom int }

func (e *NewerError) Error() string {
	return fmt.Sprintf("what is stored takes a version with format %d, and this one has format %d", e.ReadableFrom, Number)
}

// Check compares the stored number with this version's, and stores this version's if that
// is higher and the node may write. The error is a [*NewerError] if this version is too
// old.
func Check(ctx context.Context, s logical.Storage, writable func() bool) error {
	stored := mark{Format: 1, ReadableFrom: 1}
	if _, err := store.Load(ctx, s, StorageKey, &stored, errUnreadable); err != nil {
		return err
	}
	if stored.ReadableFrom > Number {
		return &NewerError{stored.ReadableFrom}
	}
	if stored.Format >= Number || !writable() {
		return nil
	}
	return store.Save(ctx, s, StorageKey, mark{Number, readableFrom})
}
