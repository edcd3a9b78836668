// Stores records in a telemetry broker and reads them back, over nothing but the generated code of protos/.
//
//	go run . 127.0.0.1:9090
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	v1 "github.com/telemetry-broker/telemetry-broker/examples/go/gen/telemetry_broker/v1"
)

const (
	topic    = "from-go"
	producer = "example"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: go run . HOST:PORT")
	}
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	broker := v1.NewBrokerServiceClient(connection)
	for _, step := range []func(context.Context, v1.BrokerServiceClient) error{produce, consume, explain} {
		if err := step(ctx, broker); err != nil {
			log.Fatal(err)
		}
	}
}

// produce stores a batch under a name and a sequence: sent again after a broken connection, it is stored once.
func produce(ctx context.Context, broker v1.BrokerServiceClient) error {
	partitions := uint32(1)
	config := &v1.TopicConfig{Partitions: &partitions}
	if _, err := broker.CreateTopic(ctx, &v1.CreateTopicRequest{Name: topic, Config: config}); err != nil {
		return err
	}
	opened, err := broker.OpenProducer(ctx, &v1.OpenProducerRequest{Topic: topic, Producer: producer})
	if err != nil {
		return err
	}
	partition := uint32(0)
	request := &v1.ProduceRequest{
		Topic:     topic,
		Partition: &partition,
		Producer:  producer,
		Sequence:  opened.Partitions[partition].Sequence + 1,
		Records:   []*v1.Record{{Value: []byte("one"), Key: []byte("GPU-1")}, {Value: []byte("two")}},
	}
	for range [2]int{} {
		answer, err := broker.Produce(ctx, request)
		if err != nil {
			return err
		}
		fmt.Printf("produced %d, duplicate %t\n", answer.Appended[0].Count, answer.Appended[0].Duplicate)
	}
	return nil
}

// consume takes records while it has given credit for them, and acks what it has handled.
func consume(ctx context.Context, broker v1.BrokerServiceClient) error {
	stream, err := broker.Consume(ctx)
	if err != nil {
		return err
	}
	receive := &v1.ReceiveRequest{Topic: topic, Group: "example", Consumer: "go-1"}
	start := &v1.ConsumeStart{Receive: receive, CreditRecords: 100}
	if err := stream.Send(&v1.ConsumeRequest{Request: &v1.ConsumeRequest_Start{Start: start}}); err != nil {
		return err
	}
	for {
		message, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		switch answer := message.Response.(type) {
		case *v1.ConsumeResponse_Delivery:
			for _, record := range answer.Delivery.Records {
				fmt.Printf("consumed %s\n", record.Value)
			}
			count := uint32(len(answer.Delivery.Records))
			ack := &v1.AckRequest{Leases: []*v1.LeaseRange{{LeaseId: answer.Delivery.LeaseId}}}
			for _, request := range []*v1.ConsumeRequest{
				{Request: &v1.ConsumeRequest_Ack{Ack: ack}},
				{Request: &v1.ConsumeRequest_Credit{Credit: &v1.ConsumeCredit{Records: count}}},
			} {
				if err := stream.Send(request); err != nil {
					return err
				}
			}
		case *v1.ConsumeResponse_Acked:
			fmt.Printf("acked %d\n", answer.Acked.Acked)
			// Enough for an example. Whoever goes on, receives until the broker says Goodbye, and connects again.
			if err := stream.CloseSend(); err != nil {
				return err
			}
		}
	}
}

// explain decides by the code of an error, which is the reason of its ErrorInfo.
func explain(ctx context.Context, broker v1.BrokerServiceClient) error {
	_, err := broker.DescribeTopic(ctx, &v1.DescribeTopicRequest{Name: "nowhere"})
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			fmt.Printf("refused %s: %s\n", info.Reason, status.Convert(err).Message())
		}
	}
	return nil
}
