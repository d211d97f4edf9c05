day() { python -c "from datetime import *; print(datetime.now(UTC).date() - timedelta(days=$1))"; }
monday() { day "14 + datetime.now(UTC).weekday()"; }
export ORPIPELINE_DATA_DIR=$PWD/data DAGSTER_HOME=$PWD/home
