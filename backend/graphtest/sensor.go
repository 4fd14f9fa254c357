// SPDX-License-Identifier: MPL-2.0

package graphtest

import (
	"encoding/json"
	"net/http"

	"github.com/google/uuid"
)

// registration is the request of a sensor during its installation. Microsoft's own
// protocol is not public; all that matters here is that the key decides.
type registration struct {
	AccessKey string `json:"access_key"`
}

// register registers a sensor that presents the current key of a tenant.
func register(x *exchange) answer {
	var request registration
	switch err := json.Unmarshal(x.body, &request); {
	case x.r.Method != http.MethodPost:
		return sensorError(http.StatusMethodNotAllowed, "registration is a POST")
	case err != nil:
		return sensorError(http.StatusBadRequest, "the request is not JSON")
	case !x.sim.admit(request.AccessKey):
		return sensorError(http.StatusForbidden, "the access key is not valid")
	}
	return answer{
		status: http.StatusCreated,
		header: http.Header{},
		body:   map[string]any{"sensor_id": uuid.NewString()},
	}
}

// admit compares the key and counts the sensor in one step, so that no regeneration comes
// between the two.
func (s *Simulator) admit(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.opens(key) {
		return false
	}
	s.count(Register, performed)
	return true
}

func sensorError(status int, message string) answer {
	return answer{status: status, header: http.Header{}, body: map[string]any{"error": message}}
}
