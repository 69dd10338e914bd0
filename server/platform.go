package server

import (
	"net/http"

	"github.com/torpor-run/torpor/runtime/snapshot/repository"
)

// platformPath stands for the host of LocalStack's platform, whose part the lstk command line takes as LSTK_API_ENDPOINT.
const platformPath = "/_localstack/platform"

// cloudPod is a named snapshot as LocalStack's clients list it.
type cloudPod struct {
	Name       string `json:"pod_name"`
	MaxVersion uint64 `json:"max_version"`
	LastChange int64  `json:"last_change"` // seconds since 1970
}

// cloudPodVersion is one version of a snapshot, in the emulator's routes and in the platform's. Some clients read
// storage_size, some size.
type cloudPodVersion struct {
	Version     uint64   `json:"version"`
	CreatedAt   int64    `json:"created_at"` // seconds since 1970
	LocalStack  string   `json:"localstack_version"`
	Services    []string `json:"services"`
	Description string   `json:"description"`
	StorageSize int64    `json:"storage_size"` // bytes of its states
	Size        int64    `json:"size"`
	Deleted     bool     `json:"deleted"`
	Encrypted   bool     `json:"encrypted"` // then its services and description are not known
}

func cloudPods(all []repository.Summary) []cloudPod {
	pods := make([]cloudPod, 0, len(all)) // never null
	for _, p := range all {
		pods = append(pods, cloudPod{Name: p.Name, MaxVersion: p.Newest, LastChange: p.Changed.Unix()})
	}
	return pods
}

func cloudPodVersions(all []repository.Version) []cloudPodVersion {
	versions := make([]cloudPodVersion, 0, len(all))
	for _, v := range all {
		services := v.Services
		if services == nil {
			services = []string{}
		}
		versions = append(versions, cloudPodVersion{Version: v.Number, CreatedAt: v.Created.Unix(), LocalStack: v.Torpor, Services: services,
			Description: v.Description, StorageSize: v.Size, Size: v.Size, Encrypted: v.Encrypted})
	}
	return versions
}

// platformList answers as LocalStack's platform does: all snapshots are the caller's own.
func (s *server) platformList(w http.ResponseWriter, r *http.Request, _ string) {
	all, err := s.listPods(r, podRequest{})
	if err != nil {
		s.fail(w, err)
		return
	}
	writeJSON(w, http.StatusOK, all)
}

// platformShow tells of one snapshot and all its versions.
func (s *server) platformShow(w http.ResponseWriter, r *http.Request, name string) {
	versions, err := s.podVersions(r, name, podRequest{})
	if err != nil {
		s.fail(w, err)
		return
	}
	newest := versions[len(versions)-1]
	var stored int64
	for _, v := range versions {
		stored += v.Stored
	}
	writeJSON(w, http.StatusOK, struct {
		cloudPod
		Public      bool              `json:"is_public"`
		StorageSize int64             `json:"storage_size"` // bytes that all versions take together: what they share counts once
		Versions    []cloudPodVersion `json:"versions"`
	}{cloudPod{name, newest.Number, newest.Created.Unix()}, false, stored, cloudPodVersions(versions)})
}
