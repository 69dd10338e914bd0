package s3

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/johannesboyne/gofakes3"
)

// Limits of what is kept beside an object's content: S3's own.
const (
	maxUserMetadataBytes = 2 << 10 // names without "x-amz-meta-", and values
	maxAttributeBytes    = 8 << 10 // all headers kept
	maxTags              = 10
	maxTagNameChars      = 128
	maxTagValueChars     = 256
)

// userMetadata begins the headers that are free for users.
const userMetadata = "x-amz-meta-"

// storageClassHeader is absent on objects of class STANDARD, in requests and in answers.
const storageClassHeader = "x-amz-storage-class"

// kept reports whether a header, by its name in lower case, is kept with the object it came with and
// sent back with it.
func kept(name string) bool {
	switch name {
	case "cache-control", "content-disposition", "content-encoding", "content-language", "content-type", "expires",
		storageClassHeader, "x-amz-website-redirect-location",
		"x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id",
		"x-amz-server-side-encryption-bucket-key-enabled":
		return true
	}
	return strings.HasPrefix(name, userMetadata)
}

// storageClasses are those a client may name. All objects are in memory whatever they say.
func storageClasses() []string {
	return []string{"STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING",
		"GLACIER", "DEEP_ARCHIVE", "GLACIER_IR", "OUTPOSTS", "SNOW", "EXPRESS_ONEZONE"}
}

// attributesOf picks the headers that are kept with an object.
func attributesOf(header http.Header) ([]pair, error) {
	var attrs []pair
	total, user := 0, 0
	for name, values := range header {
		name = strings.ToLower(name)
		if !kept(name) {
			continue
		}
		value := strings.Join(values, ",")
		own := strings.HasPrefix(name, userMetadata)
		if value == "" && !own {
			continue
		}
		if !validHeader(name, value) {
			return nil, invalidArgument("The header " + strconv.Quote(name) + " has characters that headers cannot have.")
		}
		if name == storageClassHeader {
			if !slices.Contains(storageClasses(), value) {
				return nil, fault("InvalidStorageClass", "", "The storage class you specified is not valid: "+value)
			}
			if value == string(gofakes3.StorageStandard) {
				continue
			}
		}
		total += len(name) + len(value)
		if own {
			user += len(name) - len(userMetadata) + len(value)
		}
		attrs = append(attrs, pair{name, value})
	}
	if user > maxUserMetadataBytes {
		return nil, fault(gofakes3.ErrMetadataTooLarge, "", "Your metadata headers have "+strconv.Itoa(user)+
			" bytes; the maximum is "+strconv.Itoa(maxUserMetadataBytes))
	}
	if total > maxAttributeBytes {
		return nil, fault(gofakes3.ErrMetadataTooLarge, "", "The headers to keep with the object have "+strconv.Itoa(total)+
			" bytes; the maximum is "+strconv.Itoa(maxAttributeBytes))
	}
	sortPairs(attrs)
	return attrs, nil
}

// validHeader reports whether a name, in lower case, and a value can be a header (RFC 9110, 5.1 and
// 5.5). HTTP sees to that by itself, but form fields and stored states are free text.
func validHeader(name, value string) bool {
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	for _, c := range []byte(value) {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return name != ""
}

func sortPairs(pairs []pair) {
	slices.SortFunc(pairs, func(a, b pair) int { return cmp.Compare(a.name, b.name) })
}

// setAttributes adds the headers kept with an object. Names of user metadata stay in lower case, as
// S3 sends them: some clients show them as they come.
func setAttributes(header http.Header, attrs []pair) {
	for _, a := range attrs {
		if strings.HasPrefix(a.name, userMetadata) {
			header[a.name] = []string{a.value}
		} else {
			header.Set(a.name, a.value)
		}
	}
}

// storageClass is the class an object says it is of.
func (v *version) storageClass() string {
	for _, a := range v.attrs {
		if a.name == storageClassHeader {
			return a.value
		}
	}
	return string(gofakes3.StorageStandard)
}

// tagsFromHeader reads the header x-amz-tagging, which is a URL query.
func tagsFromHeader(value string) ([]pair, error) {
	if value == "" {
		return nil, nil
	}
	query, err := url.ParseQuery(value)
	if err != nil {
		return nil, invalidArgument("The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates.")
	}
	var tags []pair
	for name, values := range query {
		for _, value := range values {
			tags = append(tags, pair{name, value})
		}
	}
	return checkTags(tags)
}

// checkTags sorts tags and holds them against S3's rules.
func checkTags(tags []pair) ([]pair, error) {
	if len(tags) > maxTags {
		return nil, fault("BadRequest", "", "Object tags cannot be greater than "+strconv.Itoa(maxTags))
	}
	sortPairs(tags)
	for i, tag := range tags {
		switch {
		case tag.name == "" || utf8.RuneCountInString(tag.name) > maxTagNameChars || !utf8.ValidString(tag.name):
			return nil, fault("InvalidTag", "", "The TagKey you have provided is invalid")
		case utf8.RuneCountInString(tag.value) > maxTagValueChars || !utf8.ValidString(tag.value):
			return nil, fault("InvalidTag", "", "The TagValue you have provided is invalid")
		case i > 0 && tag.name == tags[i-1].name:
			return nil, fault("InvalidTag", "", "Cannot provide multiple Tags with the same key")
		}
	}
	return tags, nil
}

// refusedHeader finds a header that asks for a feature whose silent absence would deceive the client:
// encryption with a key of its own, locks, appending, a checksum that nobody would verify.
func refusedHeader(header http.Header) string {
	for name, values := range header {
		lower := strings.ToLower(name)
		switch {
		case strings.HasPrefix(lower, "x-amz-server-side-encryption-customer-"),
			strings.HasPrefix(lower, "x-amz-copy-source-server-side-encryption-customer-"),
			strings.HasPrefix(lower, "x-amz-object-lock-"),
			lower == "x-amz-bucket-object-lock-enabled" && !strings.EqualFold(values[0], "false"),
			lower == "x-amz-write-offset-bytes", lower == "x-amz-rename-source":
			return name
		case strings.HasPrefix(name, checksumHeader):
			switch what := lower[len(checksumHeader):]; what {
			case "algorithm", "type", "mode":
			default:
				if algorithmOf(what) == 0 {
					return name
				}
			}
		case lower == "x-amz-trailer" && strings.HasPrefix(strings.ToLower(values[0]), strings.ToLower(checksumHeader)) && checksumOf(header) == 0:
			return name + ": " + values[0]
		}
	}
	return ""
}
