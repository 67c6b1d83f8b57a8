"""A Flask application whose long work is done by a Celery worker, over a Redis of its own."""
import os
import time

from celery import Celery
from flask import Flask, jsonify

REDIS = "redis+socket://" + os.environ["REDIS_SOCKET"]

app = Flask(__name__)
celery = Celery(__name__, broker=REDIS, backend=REDIS)
celery.conf.broker_connection_retry_on_startup = True


@celery.task
def add(x, y):
    return x + y


@celery.task
def slow(path, seconds):
    """Tells by files how far it has come."""
    open(path + ".begun", "w").close()
    time.sleep(seconds)
    open(path + ".done", "w").close()


@app.get("/add/<int:x>/<int:y>")
def sum_(x, y):
    return jsonify(sum=add.delay(x, y).get(timeout=10))


@app.post("/slow")
def start_slow():
    slow.delay(os.environ["SLOW_FILE"], 0.7)
    return "", 202
