"""Review queues, and the questions that are asked in them (label schemas): what there is. To change them is stock's."""
