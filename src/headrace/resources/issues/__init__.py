"""Issues, found in traces: what there is of an experiment. To find and to change them is stock's."""
