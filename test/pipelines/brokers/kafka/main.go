// Command kafka is one broker that speaks Kafka's protocol and keeps its records in the directory of
// its third argument. It listens on the port of the first one at 127.0.0.1, with the topic of the second,
// and prints the value of each record, base64-encoded, in a line.
package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"strconv"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "kafka:", err)
		os.Exit(1)
	}
}

func run(port, topic, dir string) error {
	number, err := strconv.Atoi(port)
	if err != nil {
		return fmt.Errorf("read the port: %w", err)
	}
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(number), kfake.SeedTopics(1, topic), kfake.DataDir(dir))
	if err != nil {
		return fmt.Errorf("listen on port %d: %w", number, err)
	}
	defer cluster.Close()
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ConsumeTopics(topic))
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	defer client.Close()
	for {
		fetches := client.PollFetches(context.Background())
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("read %s: %w", topic, err)
		}
		for record := range fetches.RecordsAll() {
			fmt.Println(base64.StdEncoding.EncodeToString(record.Value))
		}
	}
}
