package json_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/torpor-run/torpor/tests/serializers/files/through"
)

func partitionOf(t testing.TB, rec []byte) string {
	t.Helper()
	b, err := through.Reader(rec).ReadBatch()
	if err != nil {
		t.Fatal(err)
	}
	return string(b.Partition(0))
}

// names is the partition and key of each record.
func names(t testing.TB, records [][]byte) []string {
	t.Helper()
	all := make([]string, 0, len(records))
	r := through.Reader(bytes.Join(records, nil))
	for {
		b, err := r.ReadBatch()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		for i := range b.Len() {
			key, _ := b.Key(i)
			all = append(all, string(b.Partition(i))+"\x00"+string(key))
		}
	}
}

// emulator is a state of about size bytes as a cloud emulator keeps it: accounts, regions, and queues of some
// 600 bytes with texts of all kinds, numbers, times and tags.
func emulator(size int) []byte {
	r := rand.New(rand.NewPCG(42, 42))
	words := []string{"alpha", "queue", "orders", "payments", "événement", "ledger", "stream", "daten", "user", "event", "archive", "hot", "cold", "東京", "backup", "invoice", "dead-letter", "pipeline"}
	word := func() string { return words[r.IntN(len(words))] }
	regions := []string{"us-east-1", "eu-west-1", "ap-southeast-2"}
	b := make([]byte, 0, size+2000)
	b = append(b, `{"accounts":{`...)
	for account := range 8 {
		b = fmt.Appendf(b, `"%012d":{`, account)
		for i, region := range regions {
			b = fmt.Appendf(b, `"%s":{`, region)
			for n := 0; len(b) < size*(3*account+i+1)/24; n++ {
				name := fmt.Sprintf("%s-%s-%d", word(), word(), n)
				arn := fmt.Sprintf("arn:aws:sqs:%s:%012d:%s", region, account, name)
				at := 1_700_000_000 + r.IntN(30_000_000)
				b = fmt.Appendf(b, `"%s":{"arn":"%s","name":"%s","resource_id":"%08x-%04x-%04x-%04x-%012x","state":"ACTIVE","created_at":"2024-06-07T02:32:27Z","updated_at_ms":%d,"last_activity":%d.%03d,"size_bytes":%d,"offset":-%d,"enabled":%v,"encrypted":false,"description":"%s %s for the %s %s service`,
					name, arn, name, r.Uint32(), r.IntN(1<<16), r.IntN(1<<16), r.IntN(1<<16), r.Uint64()>>16, at*1000+r.IntN(1000), at, 1+r.IntN(998), r.IntN(1<<(4+r.IntN(24))), r.IntN(500), r.IntN(2) == 0, word(), word(), word(), word())
				if n%9 == 0 {
					b = append(b, `\nsecond line with \"quotes\"\tand tab`...)
				}
				b = append(b, `","tags":[`...)
				for k := range r.IntN(5) {
					if k > 0 {
						b = append(b, ',')
					}
					b = fmt.Appendf(b, `{"Key":"team-%s","Value":"%s-%d"}`, word(), word(), r.IntN(1000))
				}
				b = append(b, `],"attributes":{"VisibilityTimeout":30,"MessageRetentionPeriod":345600,"KmsMasterKeyId":`...)
				if n%10 == 0 {
					b = fmt.Appendf(b, `"alias/%s","Policy":"{\"Version\":\"2012-10-17\",\"Statement\":[{\"Effect\":\"Allow\",\"Principal\":\"*\",\"Resource\":\"%s\"}]}"}},`, word(), arn)
				} else {
					b = append(b, `null}},`...)
				}
			}
			b = append(trim(b), "},"...)
		}
		b = append(trim(b), "},"...)
	}
	return append(trim(b), `},"service":"sqs","version":3}`...)
}

// trim takes a last comma off.
func trim(b []byte) []byte {
	if b[len(b)-1] == ',' {
		return b[:len(b)-1]
	}
	return b
}
