// SPDX-License-Identifier: MPL-2.0

// Package format owns the number of the form in which the entries of a mount are stored.
//
// It exists for the way back: a version that is started after a newer one learns whether
// it can go on from what that one has stored. There is one number for the whole mount. One
// in each entry would make the ledger's pages grow, which are written at each read, and it
// would take a look into all of them to learn the same.
//
// The number is stored when the mount starts, before anything in its form. It only grows:
// after a step back, entries of the newer form are still there.
package format

import (
	"context"
	"errors"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"example.com/vault-plugin-secrets-mdi/backend/store"
)

// StorageKey is where the number is stored.
const StorageKey = "format"

// Form 1 is that of version 0.1.x, which stores no number. Form 2 has the credentials that
// the engine has made in one list, and their old fields beside it.
const (
	// number is the form of this version. It grows with each change of what is stored.
	number = 2
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

// Check compares the stored number with this version's, and stores this version's if that
// is higher and the node may write. The log says if this version is too old for what is
// stored: it is never a reason to fail.
func Check(ctx context.Context, s logical.Storage, writable func() bool) {
	stored := mark{Format: 1, ReadableFrom: 1}
	_, err := store.Load(ctx, s, StorageKey, &stored, errUnreadable)
	switch {
	case err != nil:
	case stored.ReadableFrom > number:
		hclog.FromContext(ctx).Error("a newer version has stored what this one may not understand: run that version again, or restore the snapshot from before it",
			"stored_readable_from", stored.ReadableFrom, "own_format", number)
	case stored.Format < number && writable():
		err = store.Save(ctx, s, StorageKey, mark{number, readableFrom})
	}
	if err != nil {
		hclog.FromContext(ctx).Warn("reading or storing the format number", "error", err)
	}
}
