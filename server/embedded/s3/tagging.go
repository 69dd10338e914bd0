package s3

import (
	"encoding/xml"
	"net/http"

	"github.com/johannesboyne/gofakes3"
)

// tagging is the document of PutObjectTagging and GetObjectTagging, which gofakes3 lacks: it would
// replace the object by the document.
type tagging struct {
	XMLName xml.Name     `xml:"Tagging"`
	Tags    []taggingTag `xml:"TagSet>Tag"`
}

type taggingTag struct{ Key, Value string }

func (t tagging) pairs() ([]pair, error) {
	tags := make([]pair, len(t.Tags))
	for i, tag := range t.Tags {
		tags[i] = pair{tag.Key, tag.Value}
	}
	if len(tags) == 0 {
		return nil, nil
	}
	return checkTags(tags)
}

// tagsFromXML reads the tags a browser's form has in a field.
func tagsFromXML(document []byte) ([]pair, error) {
	var t tagging
	if err := xml.Unmarshal(document, &t); err != nil {
		return nil, fault(gofakes3.ErrMalformedXML, "", "The tagging you provided was not well-formed: "+err.Error())
	}
	return t.pairs()
}

// getTagging answers GetObjectTagging.
func (q *request) getTagging() error {
	v, publicID, err := q.read(q.bucket, q.key, q.query.Get("versionId"))
	if err != nil {
		return err
	}
	q.setVersionID(publicID)
	document := tagging{Tags: make([]taggingTag, len(v.tags))}
	for i, tag := range v.tags {
		document.Tags[i] = taggingTag{tag.name, tag.value}
	}
	return writeXML(q.w, http.StatusOK, struct {
		XMLName xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ Tagging"`
		TagSet  struct{ Tag []taggingTag }
	}{TagSet: struct{ Tag []taggingTag }{document.Tags}})
}

// putTagging answers PutObjectTagging.
func (q *request) putTagging() error {
	var document tagging
	if err := q.decode(&document); err != nil {
		return err
	}
	tags, err := document.pairs()
	if err != nil {
		return err
	}
	return q.changeTags(tags, http.StatusOK)
}

// deleteTagging answers DeleteObjectTagging.
func (q *request) deleteTagging() error { return q.changeTags(nil, http.StatusNoContent) }

func (q *request) changeTags(tags []pair, status int) error {
	publicID, err := q.setTags(q.bucket, q.key, q.query.Get("versionId"), tags)
	if err != nil {
		return err
	}
	q.setVersionID(publicID)
	q.w.WriteHeader(status)
	return nil
}

func (q *request) setVersionID(id string) {
	if id != "" {
		q.w.Header().Set("X-Amz-Version-Id", id)
	}
}
