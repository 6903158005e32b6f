"""Makes the bucket of compose.yaml where it is missing, once its S3 server answers; it waits for that for a minute."""

import os
import sys
import time

import boto3
from botocore.exceptions import ClientError, EndpointConnectionError

bucket = os.environ["MLFLOW_ARTIFACTS_DESTINATION"].removeprefix("s3://")
client = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
deadline = time.monotonic() + 60
while True:
    try:
        client.create_bucket(Bucket=bucket)
        break
    except (client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
        break
    except (EndpointConnectionError, ClientError) as error:
        if time.monotonic() > deadline:
            sys.exit(f"The bucket {bucket} can't be made: {error}. Look at `docker compose logs storage`.")
        time.sleep(0.5)
