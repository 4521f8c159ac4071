"""The networks of the editor: a U-Net with an input picture and a task, and the table of task vectors."""
