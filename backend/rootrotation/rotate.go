// SPDX-License-Identifier: MPL-2.0

package rootrotation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"

	"example.com/vault-plugin-secrets-mdi/backend/config"
	"example.com/vault-plugin-secrets-mdi/backend/credential"
	"example.com/vault-plugin-secrets-mdi/backend/event"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

// A new credential works at some of Entra's hosts before it works at others, and can
// fail once more after it has worked.
const (
	Proofs   = 3 // sign-ins in succession, each with a client of its own
	proofGap = 2 * time.Second
)

// namePrefix is how an operator finds the engine's credentials in the portal.
const namePrefix = "vault-plugin-secrets-mdi"

// advance does what the credential's life asks for, until that is nothing or until the
// credential has been replaced.
func (r *Rotator) advance(ctx context.Context, conn *config.Connection, asked bool) (err error) {
	for err == nil {
		switch step := conn.Config.Root.Next(r.Now(), asked); step.Do {
		case credential.Plan:
			return r.plan(ctx, conn, step)
		case credential.Prove:
			return r.prove(ctx, conn)
		case credential.Add:
			return r.add(ctx, conn, step, false)
		case credential.Find:
			conn, err = r.findSecret(ctx, conn, step)
		case credential.Abandon:
			conn, err = r.apply(ctx, conn, credential.Event{Kind: credential.Abandoned, Of: step.Of})
		default:
			return nil
		}
	}
	return err
}

// plan stores what is to be added before Entra hears of it: the name of a secret, by which
// one can be found whose value was lost with an answer, or a certificate.
func (r *Rotator) plan(ctx context.Context, conn *config.Connection, step credential.Step) error {
	step.Of = credential.Made{Type: conn.Config.Credential.Type}
	if step.Of.Type == credential.ClientSecret {
		step.Of.Name = namePrefix + " " + uuid.NewString()
	} else {
		made, err := graph.NewCertificate(namePrefix, step.Lifetime, time.Now()) // by Entra's clock, not the engine's
		if err != nil {
			return err
		}
		info, _ := graph.ParseCertificate(made.PEM)
		step.Of.Thumbprint, step.Of.EndsAt = info.Thumbprint, info.NotAfter
		step.Of.Credential = credential.Credential{Type: step.Of.Type, Certificate: made.PEM}
	}
	conn, err := r.apply(ctx, conn, credential.Event{Kind: credential.Planned, Of: step.Of})
	if err != nil {
		return err
	}
	return r.add(ctx, conn, step, true)
}

// findSecret removes a secret whose value was lost.
func (r *Rotator) findSecret(ctx context.Context, conn *config.Connection, step credential.Step) (*config.Connection, error) {
	lost := credential.Event{Kind: credential.NotAdded, Of: step.Of, At: r.Now()}
	app, err := conn.Graph.Application(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range app.Passwords {
		if p.DisplayName == step.Of.Name {
			lost.Found = append(lost.Found, p.KeyID)
		}
	}
	if len(lost.Found) == 0 && !step.Unlisted.IsZero() {
		if _, err := r.apply(ctx, conn, credential.Event{Kind: credential.Requested, Of: step.Of}); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%w, from %s on", errUnlisted, step.Unlisted.UTC().Format(time.RFC3339))
	}
	for _, id := range lost.Found {
		if err := conn.Graph.RemovePassword(ctx, id); err != nil {
			return nil, err
		}
	}
	return r.apply(ctx, conn, lost)
}

// add has Entra add what is planned, and uses it if it works. What is not known to be
// there stays planned; a certificate that is refused may just be there already.
func (r *Rotator) add(ctx context.Context, conn *config.Connection, step credential.Step, isNew bool) error {
	answer, mayList, failure := r.send(ctx, conn, step)
	remote, ok := errors.AsType[*graph.Error](failure)
	sent := ok && remote.Op != graph.OpApplication
	refused := ok && remote.Kind == graph.Refused
	next := conn
	var err error
	switch {
	case failure == nil:
		next, err = r.apply(ctx, conn, answer)
		if errors.Is(err, ErrReplaced) {
			r.removeUnknown(ctx, conn, answer)
		}
	case sent && remote.MayHaveHappened():
		return failure
	case isNew:
		_, err = r.apply(ctx, conn, credential.Event{Kind: credential.NotAdded, Of: step.Of, Refused: refused})
	case !sent || !refused:
		return failure
	case mayList && step.Unlisted.IsZero():
		_, err = r.apply(ctx, conn, credential.Event{Kind: credential.Abandoned, Of: step.Of}) // and look for it once more
	default:
		failure = nil // it works before long, or is abandoned in the end
	}
	if err = errors.Join(err, failure); err != nil {
		return err
	}
	return r.prove(ctx, next)
}

// send asks Entra for what is planned, unless it is a certificate that is registered. It
// returns Entra's answer, and whether the app may look at its registration.
func (r *Rotator) send(ctx context.Context, conn *config.Connection, step credential.Step) (answer credential.Event, mayList bool, err error) {
	answer = credential.Event{Kind: credential.Added, Of: step.Of}
	if step.Of.Type == credential.ClientSecret {
		made, err := conn.Graph.AddPassword(ctx, step.Of.Name, time.Now().Add(step.Lifetime))
		answer.KeyID, answer.Secret, answer.EndsAt = made.KeyID, string(made.Secret), made.End
		return answer, true, err
	}
	app, err := conn.Graph.Application(ctx)
	mayList = err == nil
	if graph.Invisible(err) && conn.Config.ObjectID != "" { // it takes no permission to add a certificate
		app, err = graph.Application{ID: conn.Config.ObjectID}, nil
	}
	if answer.KeyID = app.Certificate(step.Of.Thumbprint); err == nil && answer.KeyID == "" {
		answer.KeyID, err = conn.Graph.AddKey(ctx, app.ID, step.Of.Credential.Certificate)
	}
	return answer, mayList, err
}

// prove has the credential used once it works.
func (r *Rotator) prove(ctx context.Context, conn *config.Connection) error {
	of, next := conn.Config.Root.Next(r.Now(), true).Of, *conn.Config
	next.Credential = of.Credential
	client, err := r.signIns(ctx, &next)
	if err != nil {
		return err
	}
	proven := &config.Connection{Config: conn.Config, Graph: client}
	if _, err := r.apply(ctx, proven, credential.Event{Kind: credential.Proven, Of: of}); err != nil {
		return err
	}
	r.Events.Send(ctx, event.RootRotate, event.PathRotateRoot)
	hclog.FromContext(ctx).Info("the app's own credential has been rotated", "credential_type", of.Type, "key_id", of.KeyID, "thumbprint", of.Thumbprint)
	return nil
}

// signIns signs in several times in succession, each time with a client that knows of no
// other sign-in, and returns the last one.
func (r *Rotator) signIns(ctx context.Context, cfg *config.Config) (*graph.Client, error) {
	var last error
	for proofs := 0; ; {
		conn, err := r.Configs.Connect(cfg)
		if err != nil {
			return nil, err
		}
		proofs++
		if err := conn.Graph.SignIn(ctx); err != nil {
			proofs, last = 0, err
		}
		if proofs == Proofs {
			return conn.Graph, nil
		}
		if r.Sleep(ctx, proofGap) != nil {
			return nil, errors.Join(errUnproven, last)
		}
	}
}

// removeRetired removes the credentials whose time has come. One that cannot be removed
// does not keep the others.
func (r *Rotator) removeRetired(ctx context.Context) error {
	conn, failures := r.Configs.Current(ctx)
	if failures != nil {
		return failures
	}
	for _, old := range conn.Config.Root.Next(r.Now(), true).Remove {
		err := r.remove(ctx, conn, old)
		if graph.PerhapsGone(err) {
			hclog.FromContext(ctx).Warn("a certificate of the app that has been replaced seems to have been removed before, which the app may not look at: see in the portal whether it has gone", "key_id", old.KeyID)
		} else if err != nil {
			failures = errors.Join(failures, err)
			continue
		}
		if _, err := r.apply(ctx, conn, credential.Event{Kind: credential.Removed, Of: old}); err != nil {
			return err
		}
		hclog.FromContext(ctx).Info("done with a credential of the app that has been replaced", "key_id", old.KeyID, "thumbprint", old.Thumbprint)
	}
	return failures
}

// removeUnknown removes a credential that was added while the configuration was changed,
// with the connection that it was added with: no configuration knows it.
func (r *Rotator) removeUnknown(ctx context.Context, conn *config.Connection, answer credential.Event) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportBudget)
	defer cancel()
	of := []any{"client_id", conn.Config.ClientID, "credential_type", answer.Of.Type, "key_id", answer.KeyID}
	if err := r.remove(ctx, conn, credential.Made{Type: answer.Of.Type, KeyID: answer.KeyID}); err != nil {
		hclog.FromContext(ctx).Warn("a credential that was added while the configuration was changed could not be removed from the app: remove it in the Entra portal", graph.LogArgs(err, of...)...)
	} else {
		hclog.FromContext(ctx).Info("a credential that was added while the configuration was changed has been removed from the app", of...)
	}
}

// remove removes a credential of the app. That it has gone already is a success. If
// removing it will never be possible, the log asks the operator to, and there is nothing
// left to do.
func (r *Rotator) remove(ctx context.Context, conn *config.Connection, old credential.Made) error {
	switch {
	case old.Type == credential.ClientSecret:
		return conn.Graph.RemovePassword(ctx, old.KeyID)
	case conn.Config.Credential.Type != credential.ClientCertificate: // earlier versions have left such a one on the list
		hclog.FromContext(ctx).Warn("a certificate of the app that has been replaced cannot be removed by an app that signs in otherwise: remove it in the portal", "key_id", old.KeyID)
		return nil
	}
	keyID, objectID := old.KeyID, conn.Config.ObjectID
	if keyID == "" || objectID == "" {
		app, err := conn.Graph.Application(ctx)
		switch {
		case keyID == "" && graph.Invisible(err):
			hclog.FromContext(ctx).Warn("a certificate of the app that has been replaced cannot be removed, since its id is not known and the app may not look at its registration: remove it in the portal", "thumbprint", old.Thumbprint)
			return nil
		case err != nil:
			return err
		}
		keyID, objectID = cmp.Or(keyID, app.Certificate(old.Thumbprint)), app.ID
		if keyID == "" {
			return nil // that it is not listed proves enough, since it is old
		}
	}
	return conn.Graph.RemoveKey(ctx, objectID, keyID)
}
