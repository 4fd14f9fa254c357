// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

// maxDuration is far beyond any use of a key that is needed for one installation;
// what exceeds it is a mistake in the unit.
const maxDuration = 366 * 24 * time.Hour

var guidPattern = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

func guidInto(target *string) func(any) error {
	return func(value any) error {
		id := strings.ToLower(strings.TrimSpace(value.(string)))
		if !guidPattern.MatchString(id) {
			return fmt.Errorf("must be a GUID such as 00000000-0000-0000-0000-000000000000, as the app registration's overview shows it")
		}
		*target = id
		return nil
	}
}

func rootInto(target *string) func(any) error {
	return func(value any) error {
		root, err := graph.ParseEndpoint(value.(string))
		if err == nil {
			*target = root
		}
		return err
	}
}

func (c *config) setEnvironment(value any) error {
	cloud, err := graph.CloudNamed(value.(string))
	if err != nil {
		return err
	}
	c.Environment = cloud.Name
	return nil
}

func (c *config) setCACertificate(value any) error {
	text := strings.TrimSpace(value.(string))
	if _, err := graph.ParseCertificates(text); err != nil {
		return err
	}
	c.CACertificate = text
	return nil
}

func (c *config) setGraphAPIVersion(value any) error {
	switch version := value.(string); version {
	case graph.Beta, graph.V1:
		c.GraphAPIVersion = version
		return nil
	default:
		return fmt.Errorf("must be %s or %s", graph.Beta, graph.V1)
	}
}

// durationInto takes a duration of at least shortest.
func durationInto(target *time.Duration, shortest time.Duration) func(any) error {
	return func(value any) error {
		seconds := value.(int)
		if seconds < int(shortest.Seconds()) || seconds > int(maxDuration.Seconds()) {
			return fmt.Errorf("must be between %s and %dh", shortest, int(maxDuration.Hours()))
		}
		*target = time.Duration(seconds) * time.Second
		return nil
	}
}

func flagInto(target *bool) func(any) error {
	return func(value any) error {
		*target = value.(bool)
		return nil
	}
}

// update writes the fields of d that are about the schedule over s, which was old
// before. Setting a period clears the cron expression and its window, and the other
// way round. An error is a *fieldError.
func (s *schedule) update(d *framework.FieldData, old schedule, now time.Time) error {
	period, periodGiven := givenValue(d, fieldRotationPeriod)
	cron, cronGiven := givenValue(d, fieldRotationSchedule)
	window, windowGiven := givenValue(d, fieldRotationWindow)
	setsPeriod := periodGiven && period.(int) != 0
	setsCron := cronGiven && cron.(string) != ""
	setsWindow := windowGiven && window.(int) != 0
	if setsPeriod && setsCron {
		return &fieldError{field: fieldRotationSchedule, problem: "cannot be combined with " + fieldRotationPeriod + ": set one of them"}
	}
	if periodGiven {
		if err := optional(durationInto(&s.Period, minRotationPeriod), period, &s.Period); err != nil {
			return &fieldError{field: fieldRotationPeriod, problem: err.Error() + ", or 0 for none"}
		}
	}
	if cronGiven {
		s.Cron = strings.TrimSpace(cron.(string))
		if err := parseCron(s.Cron, now); s.Cron != "" && err != nil {
			return &fieldError{field: fieldRotationSchedule, problem: "is no cron expression of five fields (minute, hour, day of month, month, day of week; UTC): " + err.Error()}
		}
	}
	if windowGiven {
		if err := optional(durationInto(&s.Window, minRotationWindow), window, &s.Window); err != nil {
			return &fieldError{field: fieldRotationWindow, problem: err.Error() + ", or 0 for none"}
		}
	}
	if setsPeriod {
		s.Cron = ""
	}
	if setsCron {
		s.Period = 0
	}
	if s.Cron == "" {
		if setsWindow {
			return &fieldError{field: fieldRotationWindow, problem: "needs " + fieldRotationSchedule + ": a rotation by period can happen at any time after it is due"}
		}
		s.Window = 0
	}
	if s.Period != old.Period || s.Cron != old.Cron {
		s.Since = now
	}
	return nil
}

// updateRoot writes what concerns the life of the app's own credential. An error is a
// *fieldError.
func (c *config) updateRoot(d *framework.FieldData, old *config, now time.Time) error {
	if old.Credential != c.Credential || old.movedBy(c) != "" {
		c.Root = old.Root.replacedBy(old, c, now)
	}
	if err := c.updateObjectID(d, old); err != nil {
		return err
	}
	period, given := givenValue(d, fieldRootRotationPeriod)
	if !given {
		if c.Credential.ambient() {
			c.Root.Period = 0
		}
		return nil
	}
	if err := optional(durationInto(&c.Root.Period, minRootRotationPeriod), period, &c.Root.Period); err != nil {
		return &fieldError{field: fieldRootRotationPeriod, problem: err.Error() + ", or 0 for none"}
	}
	if c.Root.Period != 0 && c.Credential.ambient() {
		return &fieldError{field: fieldRootRotationPeriod, problem: "is for " + credentialClientSecret + " and " + credentialClientCertificate + "; other credentials renew themselves"}
	}
	if c.Root.Period != old.Root.Period {
		c.Root.Since = now
	}
	return nil
}

// updateObjectID drops the object id of an app registration that is not the one of c any
// more, or whose certificate is not there to be rolled. An error is a *fieldError.
func (c *config) updateObjectID(d *framework.FieldData, old *config) error {
	_, given := givenValue(d, fieldApplicationObjectID)
	if given && c.ObjectID != "" && c.Credential.ambient() {
		return &fieldError{field: fieldApplicationObjectID, problem: "is for rotating a " + credentialClientCertificate + "; " + c.Credential.Type + " has none"}
	}
	if !given && (!old.sameApp(c) || c.Credential.ambient()) {
		c.ObjectID = ""
	}
	return nil
}

// unlessEmpty runs a setter of a text, for which "" clears the target.
func unlessEmpty(target *string, set func(any) error) func(any) error {
	return func(value any) error {
		if value.(string) == "" {
			*target = ""
			return nil
		}
		return set(value)
	}
}

// optional runs a setter of a duration, for which 0 clears the target.
func optional(set func(any) error, value any, target *time.Duration) error {
	if value.(int) == 0 {
		*target = 0
		return nil
	}
	return set(value)
}
