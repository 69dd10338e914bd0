//go:build linux

package examples

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamodbtypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	kinesistypes "github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// place is where an AWS client works: an account, which is what it has for an access key, and a region.
type place struct{ account, region string }

func (p place) config(url string) aws.Config {
	return aws.Config{Region: p.region, BaseEndpoint: aws.String(url), Credentials: credentials.NewStaticCredentialsProvider(p.account, "secret", "")}
}

// TestAWS: streams of two accounts in two regions each, and a table.
func TestAWS(t *testing.T) {
	t.Parallel()
	e := open(t, "aws", installed(t, "aws", "kinesis-local", "dynalite"))
	places := []place{{"000000000000", "us-east-1"}, {"000000000000", "eu-west-1"}, {"111122223333", "us-east-1"}, {"111122223333", "eu-west-1"}}
	ctx := context.Background()
	const table, perStream, items = "orders", 5, 20

	change := func() string {
		c := dynamodb.NewFromConfig(places[0].config(e.url))
		_, err := c.CreateTable(ctx, &dynamodb.CreateTableInput{TableName: aws.String(table), BillingMode: dynamodbtypes.BillingModePayPerRequest,
			AttributeDefinitions: []dynamodbtypes.AttributeDefinition{{AttributeName: aws.String("id"), AttributeType: dynamodbtypes.ScalarAttributeTypeS}},
			KeySchema:            []dynamodbtypes.KeySchemaElement{{AttributeName: aws.String("id"), KeyType: dynamodbtypes.KeyTypeHash}}})
		must(t, err)
		e.eventually("the table is active", func() bool {
			d, err := c.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: aws.String(table)})
			must(t, err)
			return d.Table.TableStatus == dynamodbtypes.TableStatusActive
		})
		var all []string
		for n := range items {
			id := fmt.Sprintf("order-%02d", n)
			_, err := c.PutItem(ctx, &dynamodb.PutItemInput{TableName: aws.String(table), Item: map[string]dynamodbtypes.AttributeValue{
				"id": &dynamodbtypes.AttributeValueMemberS{Value: id}, "n": &dynamodbtypes.AttributeValueMemberN{Value: fmt.Sprint(n)}}})
			must(t, err)
			all = append(all, fmt.Sprintf("%s=%d", id, n))
		}
		var want []string
		for i, p := range places {
			c := kinesis.NewFromConfig(p.config(e.url))
			name := aws.String(fmt.Sprint("stream-", i)) // each place has its own
			_, err := c.CreateStream(ctx, &kinesis.CreateStreamInput{StreamName: name, ShardCount: aws.Int32(1)})
			must(t, err)
			e.eventually("the stream is active", func() bool {
				d, err := c.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: name})
				must(t, err)
				return d.StreamDescriptionSummary.StreamStatus == kinesistypes.StreamStatusActive
			})
			var put kinesis.PutRecordsInput
			put.StreamName = name
			says := fmt.Sprint(p, *name)
			for n := range perStream {
				data := fmt.Sprintf("%s-%d", p, n)
				put.Records = append(put.Records, kinesistypes.PutRecordsRequestEntry{Data: []byte(data), PartitionKey: aws.String("key")})
				says += " " + data
			}
			done, err := c.PutRecords(ctx, &put)
			must(t, err)
			if aws.ToInt32(done.FailedRecordCount) != 0 {
				t.Fatalf("%+v", done)
			}
			want = append(want, says)
		}
		return strings.Join(append(want, all...), "\n")
	}

	now := func() string {
		var got []string
		for _, p := range places {
			c := kinesis.NewFromConfig(p.config(e.url))
			list, err := c.ListStreams(ctx, &kinesis.ListStreamsInput{})
			must(t, err)
			for _, name := range list.StreamNames {
				shards, err := c.ListShards(ctx, &kinesis.ListShardsInput{StreamName: &name})
				must(t, err)
				says := fmt.Sprint(p, name)
				for _, shard := range shards.Shards {
					it, err := c.GetShardIterator(ctx, &kinesis.GetShardIteratorInput{StreamName: &name, ShardId: shard.ShardId, ShardIteratorType: kinesistypes.ShardIteratorTypeTrimHorizon})
					must(t, err)
					records, err := c.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: it.ShardIterator})
					must(t, err)
					for _, r := range records.Records {
						says += " " + string(r.Data)
					}
				}
				got = append(got, says)
			}
		}
		c := dynamodb.NewFromConfig(places[0].config(e.url))
		found, err := c.Scan(ctx, &dynamodb.ScanInput{TableName: aws.String(table)})
		must(t, err)
		var all []string
		for _, item := range found.Items {
			id, n := item["id"].(*dynamodbtypes.AttributeValueMemberS), item["n"].(*dynamodbtypes.AttributeValueMemberN)
			all = append(all, id.Value+"="+n.Value)
		}
		slices.Sort(all)
		return strings.Join(append(got, all...), "\n")
	}

	e.round([]string{"kinesis", "dynamodb"}, change, now, func() {
		d := dynamodb.NewFromConfig(places[0].config(e.url))
		_, err := d.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: aws.String(table), Key: map[string]dynamodbtypes.AttributeValue{"id": &dynamodbtypes.AttributeValueMemberS{Value: "order-07"}}})
		must(t, err)
		k := kinesis.NewFromConfig(places[3].config(e.url))
		_, err = k.PutRecord(ctx, &kinesis.PutRecordInput{StreamName: aws.String("stream-3"), PartitionKey: aws.String("key"), Data: []byte("one more")})
		must(t, err)
	})
	e.has("state/kinesis/000000000000.json", "state/dynamodb/CURRENT", "state/api_states/kinesis/store.state", "state/api_states/dynamodb/store.state")

	// A record is a stream, and its partition account and region.
	records := e.torpor("inspect", "--records", e.data+"/state/api_states/kinesis/store.state")
	for i, p := range places {
		if !strings.Contains(records, p.account+"/"+p.region) || !strings.Contains(records, fmt.Sprint("stream-", i)) {
			t.Errorf("the state has no records of %s: %.2000s", p, records)
		}
	}
}
