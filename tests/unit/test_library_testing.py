"""The public builders make what the pipeline reads."""

import csv
import io
import json

from telemetry_broker import testing


def test_the_broker_for_tests_is_a_real_one_under_a_clock_that_moves_by_hand() -> None:
    clock = testing.ManualClock()
    with testing.broker(clock=clock, visibility_timeout=5) as broker:
        broker.create_topic("t")
        with broker.producer("t") as producer:
            producer.send(b"a")
        with broker.consumer("t", "g") as consumer:
            assert consumer.receive().values == [b"a"]
            assert not consumer.receive()
            clock.advance(5)
            assert consumer.receive().attempt == 2


def test_gpus_have_names_of_their_own_and_eight_share_a_host() -> None:
    gpus = testing.sample_gpus(20)
    assert len({gpu.uuid for gpu in gpus}) == 20
    assert [gpu.index for gpu in gpus[:10]] == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1]
    assert len({gpu.hostname for gpu in gpus}) == 3
    assert testing.sample_gpus(20) == gpus


def test_a_dump_has_one_row_a_sample_in_the_columns_of_real_ones() -> None:
    samples = list(testing.samples(gpus=3, scrapes=2))
    assert len(samples) == 3 * 2 * len(testing.METRICS)
    dump = testing.csv_dump(samples)
    rows = list(csv.DictReader(io.StringIO(dump.decode())))
    assert dump.splitlines()[0].decode() == ",".join(testing.CSV_COLUMNS)
    assert len(rows) == len(samples)
    first = rows[0]
    assert first["timestamp"] == "2025-07-18T20:42:34Z"
    assert first["metric_name"] == "DCGM_FI_DEV_GPU_UTIL"
    assert f'UUID="{first["uuid"]}"' in first["labels_raw"]
    assert float(first["value"]) == samples[0].value


def test_points_hold_the_samples_one_point_a_gpu_and_scrape() -> None:
    points = testing.sample_points(gpus=3, scrapes=2, interval=0.5)
    assert len(points) == 6
    head, fields, time_ns = points[-1].decode().replace("\\ ", "_").split(" ")
    assert head.startswith("gpu,hostname=gpu-host-000,gpu=2,uuid=GPU-")
    assert int(time_ns) == testing.START_NS + 500_000_000
    assert [field.split("=")[0] for field in fields.split(",")] == list(testing.METRICS)


def test_payloads_in_json_hold_a_sample() -> None:
    sample = next(testing.samples(gpus=1, start_ns=1_500_000_000))
    row = json.loads(testing.json_array(sample))
    assert (len(row), row[0]) == (12, "1970-01-01T00:00:01.5Z")
    body = json.loads(testing.json_object(sample))
    assert (body["uuid"], body["value"], body["device_id"]) == (sample.gpu.uuid, sample.value, "nvidia0")
